"""The evaluation of a model: a row for each sampler, and the figures that the rows compare with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scm_media import weights
from scm_media.evaluation.curve import Curve
from scm_media.evaluation.features import FeatureNetwork
from scm_media.evaluation.frechet import too_few
from scm_media.evaluation.measured import Instruments, Measured
from scm_media.evaluation.recipe_data import load_reference, own_reference
from scm_media.evaluation.reference import Reference
from scm_media.evaluation.rows import Progress, Row, Work, measure
from scm_media.evaluation.threshold import teacher_threshold
from scm_media.evaluation.timing import Seconds, time_rows
from scm_media.pipeline import Pipeline, SamplingRequest
from scm_media.pipeline.carried_texts import few_texts
from scm_media.pipeline.description import SamplerSettings
from scm_media.processes import Share
from scm_media.samplers import SAMPLERS


@dataclass(frozen=True)
class EvaluationRequest:
    """Settings of an evaluation.

    rows: numbers of student steps, "teacher", "teacher:STEPS" or "teacher:SOLVER:STEPS"; a teacher that the model lacks
    is left out. guidance: scales that every row is measured at, instead of the model's own. features: a feature network
    that the modality offers by name; None: the model's own. timing_batch_size, timing_repeats: of the seconds.
    curve: measures more of each row (``evaluate``).
    """

    num_samples: int = 10_000
    rows: Sequence[str | int] = ("teacher", 1, 2, 4)
    guidance: Sequence[float] = ()
    features: str | None = None
    batch_size: int = 64
    seed: int = 0
    timing_batch_size: int = 32
    timing_repeats: int = 3
    curve: bool = False


def evaluate(
    pipeline: Pipeline,
    request: EvaluationRequest | None = None,
    work: str | Path | None = None,
    progress: Progress | None = None,
    share: Share | None = None,
) -> dict[str, Any]:
    """Returns distances, precision, recall, accuracy and seconds of each row, as ``evaluate --json`` prints them.

    All rows start from the same noise and labels. ``too_few`` in the result is True where num_samples or the number of
    training samples (num_reference) is at most the dimension of the features: distances then say little. The accuracy
    is by the model's own feature extractor, whatever ``features`` is. Of several guidance scales, the figures that
    compare students with the teacher are None. ``remarks``, where there are any, say what was not measured and why, and
    that a model carries few of the texts of its training data.
    A curve has more figures of each row, with intervals, its operations, features of a second network, statistics that
    the modality takes of samples, and figures of held-out data and of their reconstructions (docs/runs.md).
    work: a folder for finished chunks, so that an interrupted evaluation continues and several processes may measure
    rows; the last call, with all rows, merges them. share: this process's share, where several measure all rows
    together; any but the first gets an empty result. progress: called with a row's name, samples done, and their total.
    Raises ValueError where there is no such feature network, where the model carries no feature extractor or
    statistics, where a row cannot be guided by a scale, and where num_samples is below 2.
    """
    request = request or EvaluationRequest()
    num_samples, guidance = request.num_samples, request.guidance
    if num_samples < 2:
        raise ValueError(f"num_samples must be at least 2, got {num_samples}")
    kept = Work(None if work is None else Path(work), share or Share())
    rows = [Row.parse(row, pipeline, scale) for scale in guidance or (None,) for row in request.rows]
    rows = [row for row in rows if not row.teacher or pipeline.folder.has("teacher")]
    for row in rows:
        pipeline.method(SamplingRequest(**row.arguments))  # raises ValueError before anything is measured
    network, reference = load_reference(pipeline, request.features, kept.folder)
    curve = None
    if request.curve:
        rows = list(dict.fromkeys(rows))
        curve = Curve.prepare(pipeline, network, reference, num_samples, kept.folder, progress)
    instruments = Instruments(network) if curve is None else curve.instruments
    settings = (num_samples, request.batch_size, request.seed, kept, progress)
    found = [measure(pipeline, instruments, row, *settings) for row in rows]
    if kept.share.rank > 0:
        return {}
    measured = [each for each in found if each is not None]  # all of them, in the first process
    seconds = time_rows(pipeline, rows, request.timing_batch_size, request.timing_repeats)
    added: dict[str, Any] = {}
    if curve is None:
        figures = [_figures(each, reference) for each in measured]
    else:
        figures, added = curve.report(rows, measured, num_samples, request.batch_size, progress)
    table = [
        {**_describe(row, made, clock), **found}
        for row, made, clock, found in zip(rows, measured, seconds.rows, figures, strict=True)
    ]
    compared = table if len(guidance) < 2 else []
    teacher = _teacher(compared, pipeline.settings)
    if not pipeline.folder.is_run and (texts := few_texts(pipeline.labels, reference.num_train)):
        added["remarks"] = [*added.get("remarks", ()), *texts]
    held_out = reference.held_out_distance(num_samples)
    return {
        **_describe_measurement(pipeline, network, reference, num_samples),
        "rows": table,
        "frechet_held_out": held_out,
        "num_held_out": reference.nearest_held_out(num_samples),
        "accuracy_held_out": own_reference(pipeline).accuracy if pipeline.folder.has("reference") else None,
        "teacher": None if teacher is None else {key: teacher[key] for key in ("sampler", "steps")},
        **_comparison(compared, teacher, seconds),
        "teacher_threshold": teacher_threshold(teacher, held_out, num_samples),
        **added,
    }


def _describe_measurement(
    pipeline: Pipeline, network: FeatureNetwork, reference: Reference, num_samples: int
) -> dict[str, Any]:
    """Returns what was measured: the model, the digest of its student, the features, and the numbers of samples."""
    folder, dimension = pipeline.folder, reference.mean.numel()
    return {
        "model": pipeline.name,
        "student": weights.digest(folder.read("student", False)) if folder.has("student") else None,
        "features": network.describe(dimension, num_samples),
        "num_samples": num_samples,
        "num_reference": reference.num_train,
        "too_few": too_few(dimension, num_samples, reference.num_train),
        "dtype": pipeline.precision,
    }


def _teacher(table: Sequence[dict[str, Any]], settings: SamplerSettings) -> dict[str, Any] | None:
    """Returns the row of the teacher that students are compared with: its own solver and steps, or most evaluations."""
    teachers = [row for row in table if row["sampler"] != "consistency"]
    own = [row for row in teachers if (row["sampler"], row["steps"]) == (settings.teacher, settings.teacher_steps)]
    return max(own or teachers, key=lambda row: row["evaluations"], default=None)


def _describe(row: Row, measured: Measured, seconds: float) -> dict[str, Any]:
    return {
        "sampler": row.sampler,
        "steps": row.steps,
        "guidance": row.guidance,
        "evaluations": measured.evaluations,
        "seconds_per_sample": seconds,
    }


def _figures(measured: Measured, reference: Reference) -> dict[str, Any]:
    precision, recall = reference.precision_recall(measured.features)
    return {
        "frechet": reference.frechet(measured.features),
        "precision": precision,
        "recall": recall,
        "accuracy": None if measured.correct is None else float(measured.correct.mean()),
    }


def _comparison(table: Sequence[dict[str, Any]], teacher: dict[str, Any] | None, seconds: Seconds) -> dict[str, Any]:
    """Returns the figures that compare students with the teacher."""
    students = {row["steps"]: row for row in table if row["sampler"] == "consistency"}

    def over_teacher(steps: int, key: str) -> float | None:
        if teacher is None or steps not in students or not teacher[key]:
            return None
        return students[steps][key] / teacher[key]

    time_ratio = over_teacher(2, "seconds_per_sample")
    bound = None
    if teacher is not None and 2 in students:
        # A guided teacher's evaluations beyond its solver's own are those of its guide, which may be smaller.
        own = SAMPLERS.find(teacher["sampler"], "sampler.teacher").evaluations(teacher["steps"])
        guide = seconds.network if seconds.guide is None else seconds.guide
        teacher_seconds = own * seconds.network + (teacher["evaluations"] - own) * guide + seconds.decode
        bound = teacher_seconds / (students[2]["evaluations"] * seconds.network + seconds.decode)
    return {
        "frechet_teacher": None if teacher is None else teacher["frechet"],
        "frechet_ratio_1_step": over_teacher(1, "frechet"),
        "frechet_ratio_2_step": over_teacher(2, "frechet"),
        "speedup_2_step": None if time_ratio is None else 1 / time_ratio,
        "network_seconds_per_sample": seconds.network,
        "guide_seconds_per_sample": seconds.guide,
        "decode_seconds_per_sample": seconds.decode,
        "speedup_bound": bound,
    }

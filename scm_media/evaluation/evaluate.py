"""The evaluation of a model: one row for each way of sampling, and what the rows are to be read against."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scm_media.evaluation.frechet import too_few
from scm_media.evaluation.recipe_data import load_reference, reference_of
from scm_media.evaluation.reference import Reference
from scm_media.evaluation.rows import Measured, Progress, Row, measure
from scm_media.evaluation.threshold import teacher_threshold
from scm_media.evaluation.timing import Seconds, time_rows
from scm_media.pipeline import Pipeline


def evaluate(
    pipeline: Pipeline,
    num_samples: int = 10_000,
    features: str | None = None,
    rows: Sequence[str | int] = ("teacher", 1, 2, 4),
    guidance: Sequence[float] = (),
    batch_size: int = 64,
    seed: int = 0,
    precision: str | None = None,
    work: str | Path | None = None,
    progress: Progress | None = None,
    timing_batch_size: int = 32,
    timing_repeats: int = 3,
) -> dict[str, Any]:
    """Distances, precision, recall, agreement and seconds of each row, as ``evaluate --json`` prints them.

    ``too_few`` in the result is true where num_samples or the number of training samples (num_reference) is at most
    the dimension of the features: distances then say little.
    rows: numbers of student steps, "teacher", "teacher:STEPS"; a teacher that the model lacks is left out. All rows
    start from the same noise and labels. guidance: scales that every row is measured at, instead of the model's own;
    of several, figures that hold students against the teacher are None. features: a network that the modality offers
    by name, None for the one that the model carries (which tells agreement with the labels in any case). precision:
    "float32" or "bf16", the pipeline's own when None. work: a folder for what is finished, so that an interrupted
    evaluation goes on and rows may be measured by several processes; the last call, with all rows, merges them.
    progress: called with a row's name, clips done and clips in all.
    Raises ValueError when there is no such network, when the model carries no feature extractor or statistics, when a
    row cannot be guided by a scale, and when num_samples is below 2.
    """
    if num_samples < 2:
        raise ValueError(f"num_samples must be at least 2, got {num_samples}")
    pipeline.to(precision=precision)
    folder = None if work is None else Path(work)
    wanted = [Row.parse(row, pipeline, scale) for scale in guidance or (None,) for row in rows]
    wanted = [row for row in wanted if not row.teacher or pipeline.folder.has("teacher")]
    for row in wanted:
        pipeline.scales(row.teacher, row.guidance)  # a scale that cannot be is refused before anything is measured
    network, reference = load_reference(pipeline, features, folder)
    measured = [measure(pipeline, network, row, num_samples, batch_size, seed, folder, progress) for row in wanted]
    seconds = time_rows(pipeline, wanted, timing_batch_size, timing_repeats)
    table = [
        _row(row, result, reference, clock) for row, result, clock in zip(wanted, measured, seconds.rows, strict=True)
    ]
    compared = table if len(guidance) < 2 else []
    dimension = reference.mean.numel()
    return {
        "model": pipeline.name,
        "features": network.describe(dimension, num_samples),
        "num_samples": num_samples,
        "num_reference": reference.num_train,
        "too_few": too_few(dimension, num_samples, reference.num_train),
        "dtype": pipeline.precision,
        "rows": table,
        "frechet_held_out": reference.held_out_distance(num_samples),
        "accuracy_held_out": _accuracy_held_out(pipeline),
        **_comparison(compared, seconds),
        "teacher_threshold": teacher_threshold(
            _teacher(compared), reference.held_out_distance(num_samples), num_samples
        ),
    }


def _accuracy_held_out(pipeline: Pipeline) -> float | None:
    """What agreement is read against: that of held-out data, told by the model's own network."""
    return reference_of(pipeline).accuracy if pipeline.folder.has("reference") else None


def _teacher(table: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Of several teacher rows the one with the most evaluations."""
    teachers = [row for row in table if row["sampler"] != "consistency"]
    return max(teachers, key=lambda row: row["evaluations"], default=None)


def _row(row: Row, measured: Measured, reference: Reference, seconds: float) -> dict[str, Any]:
    precision, recall = reference.precision_recall(measured.features)
    return {
        "sampler": row.sampler,
        "steps": row.steps,
        "guidance": row.guidance,
        "evaluations": measured.evaluations,
        "frechet": reference.frechet(measured.features),
        "precision": precision,
        "recall": recall,
        "accuracy": None if measured.right is None else float(measured.right.mean()),
        "seconds_per_sample": seconds,
    }


def _comparison(table: list[dict[str, Any]], seconds: Seconds) -> dict[str, Any]:
    """Students against the teacher."""
    students = {row["steps"]: row for row in table if row["sampler"] == "consistency"}
    teacher = _teacher(table)

    def over_teacher(steps: int, key: str) -> float | None:
        if teacher is None or steps not in students or not teacher[key]:
            return None
        return students[steps][key] / teacher[key]

    slowness = over_teacher(2, "seconds_per_sample")
    bound = None
    if teacher is not None and 2 in students:
        # Of a guided teacher's evaluations those beyond its solver's own are its guide's, which may be smaller.
        own = 2 * teacher["steps"] - 1 if teacher["sampler"] == "heun" else teacher["steps"]
        guide = seconds.network if seconds.guide is None else seconds.guide
        of_teacher = own * seconds.network + (teacher["evaluations"] - own) * guide + seconds.decode
        bound = of_teacher / (students[2]["evaluations"] * seconds.network + seconds.decode)
    return {
        "frechet_teacher": None if teacher is None else teacher["frechet"],
        "frechet_ratio_1_step": over_teacher(1, "frechet"),
        "frechet_ratio_2_step": over_teacher(2, "frechet"),
        "speedup_2_step": None if slowness is None else 1 / slowness,
        "network_seconds_per_sample": seconds.network,
        "guide_seconds_per_sample": seconds.guide,
        "decode_seconds_per_sample": seconds.decode,
        "speedup_bound": bound,
    }

"""Post-hoc EMA selection: chooses the averaging length of trained weights by the Fréchet distance of few samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from scm_media import weights
from scm_media.evaluation.recipe_data import load_reference
from scm_media.evaluation.reference import embed
from scm_media.evaluation.rows import Progress, Row
from scm_media.pipeline import Pipeline, SamplingRequest
from scm_media.training.post_hoc_ema import FOLDER, rebuild

GRID = (0.025, 0.05, 0.075, 0.10, 0.14, 0.18, 0.25)
"""Relative standard deviations that are tried, beside the weights in place."""

TEACHER_STEPS = 8
STAGES = ("teacher", "student")


def search_ema(
    pipeline: Pipeline,
    stage: str,
    num_samples: int = 2_000,
    features: str | None = None,
    row: str | int | None = None,
    batch_size: int = 64,
    seed: int = 1,
    progress: Progress | None = None,
) -> tuple[dict[str, Any], dict[str, Tensor] | None]:
    """Returns the Fréchet distance over the averaging length of a run's stage, and the best average's weights.

    The weights in place are tried too (``std`` None in the curve); where they are best, the second value is None.
    row: as in ``evaluate``; None: the student in its own number of steps, or the teacher in 8. All tries start from the
    same noise and labels; use another seed than the evaluation's.
    The first value is {model, stage, features, row, num_samples, seed, step, curve: [{std, frechet}], chosen: std}.
    Raises ValueError for another stage, a model without snapshots, and what ``evaluate`` refuses.
    """
    if stage not in STAGES:
        raise ValueError(f"stage must be one of {', '.join(STAGES)}, got {stage!r}")
    if num_samples < 2:
        raise ValueError(f"num_samples must be at least 2, got {num_samples}")
    sampling = Row.parse(_default_row(pipeline, stage) if row is None else row, pipeline)
    if sampling.teacher != (stage == "teacher"):
        raise ValueError(f"the row {row} does not draw from the {stage}; give STEPS, or teacher:STEPS for the teacher")
    if not pipeline.folder.is_run:
        raise ValueError(f"{pipeline.folder.path} is no run folder; averages are rebuilt from the snapshots of a run")
    network, reference = load_reference(pipeline, features)
    backbone = pipeline.network(stage)
    file = pipeline.folder.file(stage)
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    step = weights.read_info(file).get("step", 0)
    curve: list[dict[str, Any]] = []
    best: dict[str, Tensor] | None = None
    for std in (None, *GRID):
        state = before if std is None else rebuild(file.parent / FOLDER, std, step)
        weights.load_into(backbone, state, file.parent / FOLDER)
        batches = pipeline.batches(
            SamplingRequest(num=num_samples, seed=seed, batch_size=batch_size, **sampling.arguments)
        )
        frechet = reference.frechet(torch.cat([embed(network, made.samples.to(pipeline.device)) for made in batches]))
        if std is not None and frechet < min(entry["frechet"] for entry in curve):
            best = state
        curve.append({"std": std, "frechet": frechet})
        if progress is not None:
            progress("averages tried", len(curve), 1 + len(GRID))
    weights.load_into(backbone, before, file)
    return {
        "model": pipeline.name,
        "stage": stage,
        "features": network.describe(reference.mean.numel(), num_samples),
        "row": sampling.key,
        "num_samples": num_samples,
        "seed": seed,
        "step": step,
        "curve": curve,
        "chosen": _best(curve)["std"],
    }, best


def summarize_choice(found: dict[str, Any]) -> dict[str, Any]:
    """Returns the entry of ``model.json``: the chosen length, its figure, and that of the weights before."""
    return {
        "std": found["chosen"],
        "frechet": _best(found["curve"])["frechet"],
        "frechet_before": found["curve"][0]["frechet"],
        **{key: found[key] for key in ("row", "num_samples", "seed", "step")},
        "features": found["features"]["name"],
    }


def ema_report(found: dict[str, Any]) -> str:
    """Returns the curve of a search as text, a line for each length, with the best marked."""
    lines = [
        f"{found['model']}, {found['stage']}: Fréchet distance of {found['num_samples']} samples ({found['row']}, "
        f"{found['features']['dimension']}-dimensional features: {found['features']['name']}) over the averaging length"
    ]
    for entry in found["curve"]:
        name = "in place" if entry["std"] is None else f"{entry['std']:.3f}"
        lines.append(f"{name:>8}  {entry['frechet']:10.4g}{'  best' if entry is _best(found['curve']) else ''}")
    return "\n".join(lines)


def _default_row(pipeline: Pipeline, stage: str) -> str:
    return f"teacher:{TEACHER_STEPS}" if stage == "teacher" else str(pipeline.settings.steps)


def _best(curve: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return min(curve, key=lambda entry: entry["frechet"])

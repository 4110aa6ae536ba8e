"""Searching the times of few steps by Fréchet distance: how much noise the first starts from, then the second time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from scm_media.evaluation.recipe_data import load_reference
from scm_media.evaluation.reference import embed, labels_told
from scm_media.evaluation.rows import Progress
from scm_media.pipeline import ModelFolder, Pipeline
from scm_media.samplers import consistency_times

FIRST_SIGMAS = (10.0, 20.0, 40.0)
"""Noise levels that are tried for the first step, where they lie below the model's own sigma_max, which is tried too.

A student is worst at the most noise (``benchmarks/trajectory_error.py``); what starts from less can come nearer to the
data, at the cost of labels that were to be decided under more.
"""

GRID = (0.2, 0.35, 0.5, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3, 1.4)
"""Second times that are tried, in radians; the model's own is tried beside them."""

LABELS_LOST = 0.01
"""Of the share of clips whose label is told right: what a nearer distance may cost in any label."""

STEPS = (2, 4)
"""Numbers of steps whose second time is searched; one step has none."""


def search_times(
    pipeline: Pipeline,
    num_samples: int = 2_000,
    grid: Sequence[float] = GRID,
    first_sigmas: Sequence[float] = FIRST_SIGMAS,
    steps: Sequence[int] = STEPS,
    batch_size: int = 64,
    seed: int = 1,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """The Fréchet distance of one step over the noise it starts from, of more over the second time; the best times.

    The noise level that is best for one step is where more steps start too; these go evenly down from the second
    time, as ``consistency_times`` has it, and the model's own times are tried beside them. Best is the least distance
    of those that lose at most ``LABELS_LOST`` of any label, as the model's feature extractor tells them, to the
    model's own times. All tries start from the same noise and labels; take another seed than the evaluation's, so that
    the times are not chosen on its clips.
    Gives {model, num_samples, seed, curve: [{steps, own, first_time, second_time, times, frechet, labels: {name: share
    told right}}], times: {steps: times}}; second_time is None for one step.
    Raises ValueError when the model carries no feature extractor or statistics, num_samples is below 2 or one of steps
    is.
    """
    if num_samples < 2:
        raise ValueError(f"num_samples must be at least 2, got {num_samples}")
    if min(steps, default=2) < 2:
        raise ValueError(f"steps must be at least 2, one step being searched in any case; got {list(steps)}")
    network, reference = load_reference(pipeline)
    own_sigma, own_second = pipeline.settings.get("sigma_max", 80.0), pipeline.settings.get("second_time", 1.1)
    sigmas = sorted({own_sigma, *(sigma for sigma in first_sigmas if sigma < own_sigma)})
    curve: list[dict[str, Any]] = []

    def measure(num_steps: int, sigma: float, second: float | None, num_left: int) -> None:
        times = consistency_times(num_steps, pipeline.flow, sigma, own_second if second is None else second)
        features, told = [], []
        for clips in pipeline.batches(num_samples, times=times, seed=seed, batch_size=batch_size):
            sample = clips.samples.to(pipeline.device)
            features.append(embed(network, sample))
            told.append(labels_told(network, sample, pipeline.conditioning(clips.labels).labels))
        curve.append(
            {
                "steps": num_steps,
                "own": sigma == own_sigma and second in (None, own_second),
                "first_time": times[0],
                "second_time": second,
                "times": list(times),
                "frechet": reference.frechet(torch.cat(features)),
                "labels": {name: torch.cat([part[name] for part in told]).mean().item() for name in told[0]},
            }
        )
        if progress is not None:
            progress("times tried", len(curve), len(curve) + num_left)

    num_later = len(steps) * len({*grid, own_second})
    for place, sigma in enumerate(sigmas, 1):
        measure(1, sigma, None, len(sigmas) - place + num_later)
    latest = _best(curve, 1)["first_time"]
    first_sigma = next(sigma for sigma in sigmas if pipeline.flow.time_from_sigma(sigma) == latest)
    tries = [(own_sigma, own_second), *((first_sigma, second) for second in sorted({*grid, own_second}))]
    tries = [(sigma, second) for sigma, second in dict.fromkeys(tries) if second < pipeline.flow.time_from_sigma(sigma)]
    planned = [(num_steps, *times) for num_steps in steps for times in tries]
    for place, (num_steps, sigma, second) in enumerate(planned, 1):
        measure(num_steps, sigma, second, len(planned) - place)
    return {
        "model": pipeline.name,
        "num_samples": num_samples,
        "seed": seed,
        "curve": curve,
        "times": {str(num_steps): _best(curve, num_steps)["times"] for num_steps in (1, *steps)},
    }


def keep_times(folder: ModelFolder, found: dict[str, Any]) -> None:
    """Writes searched times into the folder's ``model.json``, as ``sampler.times``; those of other steps stay."""

    def change(written: dict[str, Any]) -> dict[str, Any]:
        times = {**(written["sampler"].get("times") or {}), **found["times"]}
        return {"sampler": {**written["sampler"], "times": {steps: times[steps] for steps in sorted(times, key=int)}}}

    folder.redescribe(change)


def times_report(found: dict[str, Any]) -> str:
    """The curve of a search as text: a line a try, the best of each number of steps marked."""
    names = found["curve"][0]["labels"]
    lines = [
        f"{found['model']}: Fréchet distance of {found['num_samples']} samples over first and second time (radians)"
    ]
    if names:
        lines.append(
            f"and the share whose {' and whose '.join(names)} is told right, of which the best may lose "
            f"{LABELS_LOST:g} to the model's own times"
        )
    for entry in found["curve"]:
        marks = "  own" * entry["own"] + "  best" * (entry is _best(found["curve"], entry["steps"]))
        second = "     " if entry["second_time"] is None else f"{entry['second_time']:.3f}"
        steps = "1 step " if entry["steps"] == 1 else f"{entry['steps']} steps"
        told = "".join(f"  {fraction:.3f}" for fraction in entry["labels"].values())
        lines.append(f"{steps}  {entry['first_time']:.4f}  {second}  {entry['frechet']:10.4g}{told}{marks}")
    return "\n".join(lines)


def _best(curve: Sequence[dict[str, Any]], num_steps: int) -> dict[str, Any]:
    tried = [entry for entry in curve if entry["steps"] == num_steps]
    own = next(entry["labels"] for entry in tried if entry["own"])
    keeping = [entry for entry in tried if all(entry["labels"][name] >= own[name] - LABELS_LOST for name in own)]
    return min(keeping, key=lambda entry: entry["frechet"])

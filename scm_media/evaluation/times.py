"""Searching the times of few steps by Fréchet distance: how much noise the first starts from, then the second time."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import torch

from scm_media import weights
from scm_media.evaluation.recipe_data import measured_by
from scm_media.evaluation.reference import agreement, embed
from scm_media.evaluation.rows import Progress
from scm_media.pipeline import ModelFolder, Pipeline
from scm_media.pipeline.sources import MODEL_FILE
from scm_media.samplers import consistency_times

FIRST_SIGMAS = (10.0, 20.0, 40.0)
"""Noise levels that are tried for the first step, where they lie below the model's own sigma_max, which is tried too.

A student is worst at the most noise (``benchmarks/trajectory_error.py``), and where data's structure is below the noise
long before sigma_max, less of it is as good a start.
"""

GRID = (0.2, 0.35, 0.5, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3, 1.4)
"""Second times that are tried, in radians; the model's own is tried beside them."""

AGREEMENT_LOST = 0.005
"""Of the share of labels that are told right: what a nearer distance may cost."""

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
    time, as ``consistency_times`` has it. Best is the least distance of those whose clips keep to their labels: whose
    agreement, as the model's embedder tells it, lies at most ``AGREEMENT_LOST`` below the highest of as many steps.
    All tries start from the same noise and labels; take another seed than the evaluation's, so that the times are not
    chosen on its clips.
    Gives {model, num_samples, seed, curve: [{steps, first_time, second_time, times, frechet, agreement}], times:
    {steps: times}}, second_time None for one step, agreement None where the embedder tells no label.
    Raises ValueError when the model carries no embedder or statistics, or num_samples is below 2.
    """
    if num_samples < 2:
        raise ValueError(f"num_samples must be at least 2, got {num_samples}")
    network, reference = measured_by(pipeline)
    own_sigma, own_second = pipeline.settings.get("sigma_max", 80.0), pipeline.settings.get("second_time", 1.1)
    sigmas = sorted({own_sigma, *(sigma for sigma in first_sigmas if sigma < own_sigma)})
    seconds = sorted({*grid, own_second})
    curve: list[dict[str, Any]] = []

    def measure(num_steps: int, sigma: float, second: float | None) -> dict[str, Any]:
        times = consistency_times(num_steps, pipeline.flow, sigma, own_second if second is None else second)
        features, rights = [], []
        for clips in pipeline.batches(num_samples, times=times, seed=seed, batch_size=batch_size):
            sample = clips.samples.to(pipeline.device)
            features.append(embed(network, sample))
            right = agreement(network, sample, pipeline.conditioning(clips.labels).labels)
            rights += [] if right is None else [right]
        entry = {"steps": num_steps, "first_time": times[0], "second_time": second, "times": list(times)}
        told = torch.cat(rights).mean().item() if rights else None
        curve.append({**entry, "frechet": reference.frechet(torch.cat(features)), "agreement": told})
        if progress is not None:
            progress("times tried", len(curve), len(sigmas) + len(seconds) * len(steps))
        return curve[-1]

    for sigma in sigmas:
        measure(1, sigma, None)
    latest = _best(curve, 1)["first_time"]
    first_sigma = pipeline.flow.sigma_from_time(latest)
    seconds = [second for second in seconds if second < latest]
    for num_steps in steps:
        for second in seconds:
            measure(num_steps, first_sigma, second)
    return {
        "model": pipeline.name,
        "num_samples": num_samples,
        "seed": seed,
        "curve": curve,
        "times": {str(num_steps): _best(curve, num_steps)["times"] for num_steps in (1, *steps)},
    }


def keep_times(folder: ModelFolder, found: dict[str, Any]) -> None:
    """Writes searched times into the folder's ``model.json``, as ``sampler.times``; those of other steps stay."""
    written = ModelFolder.open(folder.path).description  # what another search has kept since
    sampler = written["sampler"]
    times = {**(sampler.get("times") or {}), **found["times"]}
    times = {num_steps: times[num_steps] for num_steps in sorted(times, key=int)}
    description = {**written, "sampler": {**sampler, "times": times}}
    text = json.dumps(description, indent=2, ensure_ascii=False)
    weights.write_whole(folder.path / MODEL_FILE, f"{text}\n".encode())


def times_report(found: dict[str, Any]) -> str:
    """The curve of a search as text: a line a try, the best of each number of steps marked."""
    lines = [
        f"{found['model']}: Fréchet distance of {found['num_samples']} samples over the first and the second time "
        "(radians), and agreement with labels"
    ]
    for entry in found["curve"]:
        mark = "  best" if entry is _best(found["curve"], entry["steps"]) else ""
        second = "     " if entry["second_time"] is None else f"{entry['second_time']:.3f}"
        steps = "1 step " if entry["steps"] == 1 else f"{entry['steps']} steps"
        told = "" if entry["agreement"] is None else f"  {entry['agreement']:.3f}"
        lines.append(f"{steps}  {entry['first_time']:.4f}  {second}  {entry['frechet']:10.4g}{told}{mark}")
    return "\n".join(lines)


def _best(curve: Sequence[dict[str, Any]], num_steps: int) -> dict[str, Any]:
    tried = [entry for entry in curve if entry["steps"] == num_steps]
    if all(entry["agreement"] is not None for entry in tried):
        fewest = max(entry["agreement"] for entry in tried) - AGREEMENT_LOST
        tried = [entry for entry in tried if entry["agreement"] >= fewest]
    return min(tried, key=lambda entry: entry["frechet"])

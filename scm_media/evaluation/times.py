"""Searches the times of few steps by Fréchet distance: first the noise level to start from, then the second time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from scm_media.evaluation.recipe_data import load_reference
from scm_media.evaluation.reference import embed, match_labels
from scm_media.evaluation.rows import Progress
from scm_media.pipeline import ModelDescription, ModelFolder, Pipeline, SamplingRequest
from scm_media.samplers import consistency_times

FIRST_SIGMAS = (10.0, 20.0, 40.0)
"""Noise levels that are tried for the first step, below the model's own, which is tried too.

A student errs most under much noise (``benchmarks/trajectory_error.py``). Starting from less noise can bring samples
nearer to the data, at the cost of labels that are decided under much noise.
"""

GRID = (0.2, 0.35, 0.5, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3, 1.4)
"""Second times that are tried, in radians, beside the model's own."""

MAX_ACCURACY_LOSS = 0.01
"""The accuracy of each label that a smaller distance may cost."""

STEPS = (2, 4)
"""Numbers of steps whose second time is searched."""


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
    """Returns Fréchet distances of one step over its noise level, of more over the second time, and the best times.

    More steps start from the noise level that is best for one step, and go evenly down from the second time as in
    ``consistency_times``; the model's own times are tried too. The best times have the least distance among those that
    lose at most ``MAX_ACCURACY_LOSS`` of each label's accuracy, by the model's feature extractor, to the model's own
    times. All tries start from the same noise and labels; use another seed than the evaluation's, so that the times are
    not chosen on its samples.
    Returns {model, num_samples, seed, curve: [{steps, own, first_time, second_time, times, frechet, labels: {name:
    accuracy}}], times: {steps: times}}; second_time is None for one step.
    Raises ValueError where the model carries no feature extractor or statistics, and where num_samples or one of steps
    is below 2.
    """
    if num_samples < 2:
        raise ValueError(f"num_samples must be at least 2, got {num_samples}")
    if min(steps, default=2) < 2:
        raise ValueError(f"steps must be at least 2, one step being searched in any case; got {list(steps)}")
    network, reference = load_reference(pipeline)
    own_sigma, own_second = pipeline.settings.student_sigma, pipeline.settings.second_time
    sigmas = sorted({own_sigma, *(sigma for sigma in first_sigmas if sigma < own_sigma)})
    curve: list[dict[str, Any]] = []

    def measure(num_steps: int, sigma: float, second: float | None, num_left: int) -> None:
        times = consistency_times(num_steps, pipeline.flow, sigma, own_second if second is None else second)
        features, matches = [], []
        request = SamplingRequest(num=num_samples, times=times, seed=seed, batch_size=batch_size)
        for made in pipeline.batches(request):
            sample = made.samples.to(pipeline.device)
            features.append(embed(network, sample))
            matches.append(match_labels(network, sample, pipeline.labels.conditioning(made.labels).labels))
        curve.append(
            {
                "steps": num_steps,
                "own": sigma == own_sigma and second in (None, own_second),
                "first_time": times[0],
                "second_time": second,
                "times": list(times),
                "frechet": reference.frechet(torch.cat(features)),
                "labels": {name: torch.cat([part[name] for part in matches]).mean().item() for name in matches[0]},
            }
        )
        if progress is not None:
            progress("times tried", len(curve), len(curve) + num_left)

    num_later = len(steps) * len({*grid, own_second})
    for number, sigma in enumerate(sigmas, 1):
        measure(1, sigma, None, len(sigmas) - number + num_later)
    latest = _best(curve, 1)["first_time"]
    first_sigma = next(sigma for sigma in sigmas if pipeline.flow.time_from_sigma(sigma) == latest)
    tries = [(own_sigma, own_second), *((first_sigma, second) for second in sorted({*grid, own_second}))]
    tries = [(sigma, second) for sigma, second in dict.fromkeys(tries) if second < pipeline.flow.time_from_sigma(sigma)]
    planned = [(num_steps, *times) for num_steps in steps for times in tries]
    for number, (num_steps, sigma, second) in enumerate(planned, 1):
        measure(num_steps, sigma, second, len(planned) - number)
    return {
        "model": pipeline.name,
        "num_samples": num_samples,
        "seed": seed,
        "curve": curve,
        "times": {str(num_steps): _best(curve, num_steps)["times"] for num_steps in (1, *steps)},
    }


def keep_times(folder: ModelFolder, found: dict[str, Any]) -> None:
    """Writes searched times into the folder's ``model.json``, as ``sampler.times``; those of other steps stay."""

    def change(written: ModelDescription) -> ModelDescription:
        times = {**(written.sampler.times or {}), **found["times"]}
        in_order = {steps: times[steps] for steps in sorted(times, key=int)}
        return replace(written, sampler=replace(written.sampler, times=in_order))

    folder.redescribe(change)


def times_report(found: dict[str, Any]) -> str:
    """Returns the curve of a search as text, a line for each try, with the best of each number of steps marked."""
    names = found["curve"][0]["labels"]
    lines = [
        f"{found['model']}: Fréchet distance of {found['num_samples']} samples over first and second time (radians)"
    ]
    if names:
        lines.append(
            f"and the accuracy of {' and '.join(names)}, of which the best may lose {MAX_ACCURACY_LOSS:g} to the "
            "model's own times"
        )
    for entry in found["curve"]:
        marks = "  own" * entry["own"] + "  best" * (entry is _best(found["curve"], entry["steps"]))
        second = "     " if entry["second_time"] is None else f"{entry['second_time']:.3f}"
        steps = "1 step " if entry["steps"] == 1 else f"{entry['steps']} steps"
        accuracies = "".join(f"  {fraction:.3f}" for fraction in entry["labels"].values())
        lines.append(f"{steps}  {entry['first_time']:.4f}  {second}  {entry['frechet']:10.4g}{accuracies}{marks}")
    return "\n".join(lines)


def _best(curve: Sequence[dict[str, Any]], num_steps: int) -> dict[str, Any]:
    tried = [entry for entry in curve if entry["steps"] == num_steps]
    own = next(entry["labels"] for entry in tried if entry["own"])
    keeping = [entry for entry in tried if all(entry["labels"][name] >= own[name] - MAX_ACCURACY_LOSS for name in own)]
    return min(keeping, key=lambda entry: entry["frechet"])

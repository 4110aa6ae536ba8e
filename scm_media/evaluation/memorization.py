"""Is it copying? Generated samples beside the training samples that are nearest to them in feature space."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from scm_media.data import Dataset, gather
from scm_media.evaluation.features import FeatureNetwork, named_network, own_network
from scm_media.evaluation.neighbours import distances
from scm_media.evaluation.recipe_data import once, recipe_data
from scm_media.evaluation.reference import embed
from scm_media.evaluation.rows import Progress, Row
from scm_media.pipeline import Pipeline

NUM_NEIGHBOURS = 3
QUANTILE = 0.01
BATCH_SIZE = 250


def find_memorized(
    pipeline: Pipeline,
    num_shown: int = 12,
    num_samples: int = 1_000,
    features: str | None = None,
    row: str | int | None = None,
    batch_size: int = 64,
    seed: int = 0,
    progress: Progress | None = None,
) -> tuple[dict[str, Any], Any]:
    """How near samples come to the training data, and a sheet (PIL) of the nearest ones beside their neighbours.

    Distances are Euclidean, in features that are not projected. Held-out data are the yardstick: ``share_below`` is
    the share of samples nearer to the training data than all but 1 % of held-out data are (0.01 where nothing is
    copied); ``nearer_than_held_out`` the chance that a sample is nearer than a held-out one (0.5), the statistic of
    Mann & Whitney that Meehan et al. 2020 (arXiv 2004.05675, section 3) test for copying with. Both None where nothing
    is held out. row: as in ``evaluate``; None: the student in its own number of steps.
    Raises ValueError when the recipe's data are not there, or num_shown or num_samples is below 1.
    """
    for name, num in (("num_shown", num_shown), ("num_samples", num_samples)):
        if num < 1:
            raise ValueError(f"{name} must be at least 1, got {num}")
    way = Row.parse(_own_row(pipeline) if row is None else row, pipeline)
    network = own_network(pipeline) if features is None else named_network(features, pipeline.modality, pipeline.device)
    train, held_out = recipe_data(pipeline.folder)
    arguments = {**way.arguments, "seed": seed, "batch_size": batch_size}
    made = [embed(network, clips.samples.to(pipeline.device)) for clips in pipeline.batches(num_samples, **arguments)]
    real = [embed(network, batch.to(pipeline.device).sample) for batch in _some(held_out, num_samples)]
    queries = torch.cat([*made, *real])
    far, places = nearest(network, queries, train, min(NUM_NEIGHBOURS, len(train)), pipeline.device, progress)
    shown = far[:num_samples, 0].argsort(stable=True)[:num_shown].tolist()
    sheet = _draw_neighbours(pipeline, train, arguments, shown, far, places)
    return {
        "model": pipeline.name,
        "features": network.describe(queries.shape[1], num_samples),
        "sampler": way.sampler,
        "steps": way.steps,
        "seed": seed,
        "num_samples": num_samples,
        "num_train": len(train),
        "num_held_out": len(queries) - num_samples,
        **compare(far[:num_samples, 0], far[num_samples:, 0]),
        "shown": [
            {"index": index, "train": places[index].tolist(), "distance": far[index].tolist()} for index in shown
        ],
    }, sheet


def compare(sampled: Tensor, held_out: Tensor) -> dict[str, float | None]:
    """Medians, and how much nearer samples are than held-out data: distances ``(N,)`` and ``(M,)`` to training data."""
    figures: dict[str, float | None] = {
        "median": float(sampled.median()),
        "median_held_out": None,
        "share_below": None,
        "nearer_than_held_out": None,
    }
    if len(held_out):
        ordered, sampled = held_out.sort().values, sampled.contiguous()
        below = len(held_out) - torch.searchsorted(ordered, sampled, right=True)
        ties = torch.searchsorted(ordered, sampled, right=True) - torch.searchsorted(ordered, sampled)
        figures["median_held_out"] = float(held_out.median())
        figures["share_below"] = float((sampled < held_out.quantile(QUANTILE)).double().mean())
        figures["nearer_than_held_out"] = float(((below + ties / 2) / len(held_out)).double().mean())
    return figures


def nearest(
    network: FeatureNetwork,
    queries: Tensor,
    train: Dataset,
    num: int,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> tuple[Tensor, Tensor]:
    """Distances and numbers ``(N, num)`` of the training samples nearest to features ``(N, d)``, nearest first.

    The training data stream by; only the best so far are kept.
    """
    far, places = torch.empty(len(queries), 0), torch.empty(len(queries), 0, dtype=torch.int64)
    seen = 0
    for batch in once(train):
        features = embed(network, batch.sample.to(device))
        numbers = torch.arange(seen, seen + len(features)).expand(len(queries), -1)
        far, chosen = torch.cat([far, distances(queries, features)], 1).topk(
            min(num, far.shape[1] + len(features)), largest=False
        )
        places = torch.cat([places, numbers], 1).gather(1, chosen)
        seen += len(features)
        if progress is not None:
            progress("training samples compared", seen, len(train))
    return far, places


def _own_row(pipeline: Pipeline) -> str:
    return str(pipeline.settings.get("steps", 2)) if pipeline.folder.has("student") else "teacher"


def _some(dataset: Dataset, num: int) -> Iterator[Any]:
    """At most so many examples, drawn by a fixed seed: folders list one class after the other."""
    order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(0))[:num].tolist()
    for first in range(0, len(order), BATCH_SIZE):
        yield gather(dataset, order[first : first + BATCH_SIZE])


def _draw_neighbours(
    pipeline: Pipeline, train: Dataset, arguments: dict[str, Any], shown: list[int], far: Tensor, places: Tensor
) -> Any:
    """Returns a sheet with a row for each sample of ``shown``: the sample and the training samples nearest to it."""
    samples, captions = [], []
    for index in shown:
        sample = next(pipeline.batches(1, first=index, **arguments))
        samples += [sample.samples, gather(train, places[index].tolist()).sample]
        captions += [f"sample {index} " + " ".join(str(value) for value in sample.labels[0].values())]
        captions += [f"{distance:.4g}" for distance in far[index].tolist()]
    return pipeline.modality.preview(torch.cat(samples), captions, columns=1 + places.shape[1])

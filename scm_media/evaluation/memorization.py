"""Memorization: how near generated samples come to training samples, in feature space."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from scm_media.data import Dataset
from scm_media.evaluation.features import FeatureNetwork, named_network, own_network
from scm_media.evaluation.neighbours import distances
from scm_media.evaluation.recipe_data import draw_examples, iterate, recipe_data
from scm_media.evaluation.reference import embed
from scm_media.evaluation.rows import Progress, Row
from scm_media.pipeline import Pipeline, SamplingRequest

NUM_NEIGHBOURS = 3
QUANTILE = 0.01


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
    """Returns how near samples come to the training data, and a sheet (PIL) of the nearest ones with their neighbours.

    Distances are Euclidean, in features that are not projected, and compare with those of held-out data.
    ``fraction_below`` is the fraction of samples nearer to the training data than all but 1 % of the held-out samples
    (0.01 where nothing is copied). ``nearer_than_held_out`` is the probability that a sample is nearer than a held-out
    one (0.5), the Mann–Whitney statistic by which Meehan et al. 2020 (arXiv 2004.05675, section 3) test for copying.
    Both are None where nothing is held out. row: as in ``evaluate``; None: the student in its own number of steps.
    Raises ValueError where the recipe's data are not there, or num_shown or num_samples is below 1.
    """
    for name, num in (("num_shown", num_shown), ("num_samples", num_samples)):
        if num < 1:
            raise ValueError(f"{name} must be at least 1, got {num}")
    sampling = Row.parse(_default_row(pipeline) if row is None else row, pipeline)
    network = own_network(pipeline) if features is None else named_network(features, pipeline.modality, pipeline.device)
    train, held_out = recipe_data(pipeline.folder)
    request = SamplingRequest(num=num_samples, seed=seed, batch_size=batch_size, **sampling.arguments)
    made = [embed(network, clips.samples.to(pipeline.device)) for clips in pipeline.batches(request)]
    real = [embed(network, batch.to(pipeline.device).sample) for batch in draw_examples(held_out, num_samples)]
    queries = torch.cat([*made, *real])
    distance, indices = find_nearest(
        network, queries, train, min(NUM_NEIGHBOURS, len(train)), pipeline.device, progress
    )
    shown = distance[:num_samples, 0].argsort(stable=True)[:num_shown].tolist()
    sheet = _draw_neighbours(pipeline, train, request, shown, distance, indices)
    return {
        "model": pipeline.name,
        "features": network.describe(queries.shape[1], num_samples),
        "sampler": sampling.sampler,
        "steps": sampling.steps,
        "seed": seed,
        "num_samples": num_samples,
        "num_train": len(train),
        "num_held_out": len(queries) - num_samples,
        **compare_distances(distance[:num_samples, 0], distance[num_samples:, 0]),
        "shown": [
            {"index": index, "train": indices[index].tolist(), "distance": distance[index].tolist()} for index in shown
        ],
    }, sheet


def compare_distances(sampled: Tensor, held_out: Tensor) -> dict[str, float | None]:
    """Returns the figures of ``find_memorized`` for the distances of samples ``(N,)`` and held-out data ``(M,)``."""
    figures: dict[str, float | None] = {
        "median": float(sampled.median()),
        "median_held_out": None,
        "fraction_below": None,
        "nearer_than_held_out": None,
    }
    if len(held_out):
        ordered, sampled = held_out.sort().values, sampled.contiguous()
        below = len(held_out) - torch.searchsorted(ordered, sampled, right=True)
        ties = torch.searchsorted(ordered, sampled, right=True) - torch.searchsorted(ordered, sampled)
        figures["median_held_out"] = float(held_out.median())
        figures["fraction_below"] = float((sampled < held_out.quantile(QUANTILE)).double().mean())
        figures["nearer_than_held_out"] = float(((below + ties / 2) / len(held_out)).double().mean())
    return figures


def find_nearest(
    network: FeatureNetwork,
    queries: Tensor,
    train: Dataset,
    num: int,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> tuple[Tensor, Tensor]:
    """Returns distances and indices ``(N, num)`` of the training samples nearest to features ``(N, d)``, ascending.

    The training data are read batch by batch, and only the nearest so far are kept.
    """
    nearest, indices = torch.empty(len(queries), 0), torch.empty(len(queries), 0, dtype=torch.int64)
    seen = 0
    for batch in iterate(train):
        features = embed(network, batch.sample.to(device))
        candidates = torch.cat([nearest, distances(queries, features)], 1)
        nearest, order = candidates.topk(min(num, candidates.shape[1]), largest=False)
        numbers = torch.arange(seen, seen + len(features)).expand(len(queries), -1)
        indices = torch.cat([indices, numbers], 1).gather(1, order)
        seen += len(features)
        if progress is not None:
            progress("training samples compared", seen, len(train))
    return nearest, indices


def _default_row(pipeline: Pipeline) -> str:
    return str(pipeline.settings.steps) if pipeline.folder.has("student") else "teacher"


def _draw_neighbours(
    pipeline: Pipeline, train: Dataset, request: SamplingRequest, shown: list[int], far: Tensor, places: Tensor
) -> Any:
    """Returns a sheet with a row for each sample of ``shown``: the sample and the training samples nearest to it."""
    samples, captions = [], []
    for index in shown:
        sample = next(pipeline.batches(replace(request, num=1, first=index)))
        samples += [sample.samples, train.batch(places[index].tolist()).sample]
        captions += [f"sample {index} " + " ".join(str(value) for value in sample.labels[0].values())]
        captions += [f"{distance:.4g}" for distance in far[index].tolist()]
    return pipeline.modality.preview(torch.cat(samples), captions, columns=1 + places.shape[1])

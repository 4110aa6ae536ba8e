"""The data of a model's recipe, and the reference statistics that are computed from them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from scm_media import weights
from scm_media.build import build
from scm_media.data import Batch, Dataset
from scm_media.evaluation.collecting import Collection, UnfinishedFile
from scm_media.evaluation.features import FeatureNetwork, named_network, own_network, project_features
from scm_media.evaluation.reference import Reference, as_reference, collect
from scm_media.interfaces import FeatureExtractor
from scm_media.pipeline import ModelFolder, Pipeline
from scm_media.sources import open_data

BATCH_SIZE = 250
OUTPUT_KEYS = ("index",)
"""Keys of ``data`` that name a folder to write to: a recipe that came with a model does not decide that."""


def load_reference(
    pipeline: Pipeline,
    name: str | None = None,
    work: Path | None = None,
    progress: Callable[[str, int, int], None] | None = None,
    num: int | None = None,
) -> tuple[FeatureNetwork, Reference]:
    """Returns a feature network (None: the model's own) and the statistics of the training data's features.

    The statistics of a named network are computed once from the recipe's data and kept in the run's folder, or in
    ``work`` where the model's folder is not the user's to write to; progress is told meanwhile. num: where there are
    none yet, they are taken of at most so many training samples and as many held-out ones, chosen by a fixed seed, and
    kept in ``work`` alone; None for all. Raises ValueError where there is no such network, and where there are neither
    statistics nor data.
    """
    if name is None:
        return own_network(pipeline), own_reference(pipeline, progress)
    folder = pipeline.folder
    network = named_network(name, pipeline.modality, pipeline.device)
    network = project_features(network, folder.description.sample_shape, pipeline.device)
    own = f"reference-{name}"
    if folder.has(own):
        return network, Reference.from_component(folder.read(own), folder.file(own))
    kept = None if work is None else work / f"{own}{'' if num is None else f'-{num}'}-{_recipe_name(folder)}"
    if folder.is_run and num is None:
        kept = folder.file(own)
    if kept is not None and kept.is_file():
        return network, Reference.load(kept)
    what = f"training data in the features of {name}"
    return network, _take_statistics(pipeline, network, kept, what, progress, num)


def _take_statistics(
    pipeline: Pipeline,
    network: FeatureExtractor,
    kept: Path | None,
    what: str,
    progress: Callable[[str, int, int], None] | None,
    num: int | None = None,
    **identity: Any,
) -> Reference:
    """Returns the statistics of the data of a model's recipe, and writes them into a file (``kept``).

    Where that was interrupted, it goes on from the file beside it. num: as in ``load_reference``. what: the words that
    progress is told under. identity: what else the features depend on.
    """
    train, held_out = recipe_data(pipeline.folder)
    identity |= {"batch_size": BATCH_SIZE, **_describe("train", train), **_describe("held_out", held_out)}
    unfinished = UnfinishedFile(None if kept is None else kept.with_suffix(".unfinished"), identity)
    collection = unfinished.resume()
    told = _told(train, num, what, progress, collection)
    rest = _examples(held_out, num, collection.num_batches["held_out"])
    for _ in collect(collection, network, told, rest, pipeline.device):
        unfinished.save(collection)
    reference = as_reference(collection)
    if kept is not None:
        reference.save(kept)
        unfinished.remove()
    return reference


def _describe(split: str, dataset: Dataset) -> dict[str, Any]:
    return {split: len(dataset), f"{split} fingerprint": dataset.fingerprint()}


def _recipe_name(folder: ModelFolder) -> str:
    """Returns a file name that depends on the recipe, so that models measured into one folder keep their data apart."""
    recipe = json.dumps(folder.recipe(), sort_keys=True, default=str)
    return f"{hashlib.sha256(recipe.encode()).hexdigest()[:12]}.safetensors"


def own_reference(pipeline: Pipeline, progress: Callable[[str, int, int], None] | None = None) -> Reference:
    """Returns the statistics that a model carries; a run's are computed once from its recipe's data and kept.

    progress is told meanwhile. Raises ValueError where there are none, and no recipe or no data to compute them from.
    """
    folder = pipeline.folder
    if folder.has("reference") or not (folder.is_run and (folder.path / "recipe.yaml").is_file()):
        return Reference.from_component(folder.read("reference"), folder.file("reference"))
    network, kept = pipeline.network("feature_extractor"), folder.file("reference")
    digest = weights.digest(folder.read("feature_extractor", False))
    _take_statistics(pipeline, network, kept, "training data", progress, feature_extractor=digest)
    return Reference.load(kept)


def recipe_data(folder: ModelFolder) -> tuple[Dataset, Dataset]:
    """Returns training data and held-out data of a model's recipe; raises ValueError where they are not there."""
    config = folder.recipe()
    if config is None:
        raise ValueError(f"{folder.path} holds no recipe.yaml, so its training data are not known; use its run folder")
    modality, data = build(config.get("modality"), "modality"), config.get("data")
    if isinstance(data, dict):
        data = {**data, **{key: None for key in OUTPUT_KEYS if key in data}}
    splits = open_data({**config, "data": data}, modality)
    return splits["train"], splits["held_out"]


def iterate(dataset: Dataset, first: int = 0) -> Iterator[Batch]:
    """Yields every example of a dataset once, in order and without augmentation; first: the batch to begin with."""
    return _batches(dataset, range(len(dataset)), first)


def draw_examples(dataset: Dataset, num: int, first: int = 0) -> Iterator[Batch]:
    """Yields at most ``num`` examples, chosen by a fixed seed, since folders list one class after the other.

    first: the batch to begin with.
    """
    order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(0))[:num].tolist()
    return _batches(dataset, order, first)


def _batches(dataset: Dataset, order: Sequence[int], first: int) -> Iterator[Batch]:
    for start in range(first * BATCH_SIZE, len(order), BATCH_SIZE):
        yield dataset.batch(order[start : start + BATCH_SIZE])


def _examples(dataset: Dataset, num: int | None, first: int = 0) -> Iterator[Batch]:
    """Yields every example in order, or ``num`` of them where there are more; first: the batch to begin with."""
    if num is None or num >= len(dataset):
        return iterate(dataset, first)
    return draw_examples(dataset, num, first)


def _told(
    dataset: Dataset,
    num: int | None,
    what: str,
    progress: Callable[[str, int, int], None] | None,
    collection: Collection,
) -> Iterator[Batch]:
    """Yields what ``_examples`` does but for what was collected, and tells how much of it was taken."""
    total = len(dataset) if num is None else min(num, len(dataset))
    done = 0 if collection.moments is None else collection.moments.count
    for batch in _examples(dataset, num, collection.num_batches["train"]):
        yield batch
        done += len(batch.sample)
        if progress is not None:
            progress(what, done, total)

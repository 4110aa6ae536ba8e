"""What is measured against: reference statistics, from the data that a model's recipe names where there are none."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

from scm_media.build import build
from scm_media.data import Batch, Dataset, gather
from scm_media.evaluation.features import FeatureNetwork, named_network, own_network, projected
from scm_media.evaluation.reference import Reference, make_reference
from scm_media.pipeline import ModelFolder, Pipeline

BATCH_SIZE = 250
WRITTEN = ("index",)
"""Keys of data that name a folder which is written to."""


def load_reference(
    pipeline: Pipeline, name: str | None = None, work: Path | None = None
) -> tuple[FeatureNetwork, Reference]:
    """The feature network and the statistics of the training data's features: the model's own (None), or a named one.

    A named network's statistics are made from the data of the recipe once, and kept in a run's folder; in ``work`` for
    a model whose folder is not the user's to write to. Raises ValueError when there is no such network, and when there
    are neither statistics nor data to make them of.
    """
    if name is None:
        return own_network(pipeline), reference_of(pipeline)
    folder = pipeline.folder
    network = projected(
        named_network(name, pipeline.modality, pipeline.device), folder.description["sample_shape"], pipeline.device
    )
    own = folder.file(f"reference-{name}")
    kept = own if folder.is_run or own.is_file() or work is None else work / f"reference-{name}-{_recipe(folder)}"
    if kept.is_file():
        return network, Reference.load(kept)
    train, held_out = recipe_data(folder)
    reference = make_reference(network, once(train), once(held_out), device=pipeline.device)
    if folder.is_run or work is not None:
        reference.save(kept)
    return network, reference


def _recipe(folder: ModelFolder) -> str:
    """A file name by the recipe, so that models measured into one folder do not take each other's data for theirs."""
    recipe = json.dumps(folder.recipe(), sort_keys=True, default=str)
    return f"{hashlib.sha256(recipe.encode()).hexdigest()[:12]}.safetensors"


def reference_of(pipeline: Pipeline) -> Reference:
    """The statistics that a model carries; a run's are made from its recipe's data once, and kept in its folder.

    Raises ValueError when there are none and no recipe to make them by, or its data are not there.
    """
    folder = pipeline.folder
    if folder.has("reference") or not (folder.is_run and (folder.path / "recipe.yaml").is_file()):
        return Reference.from_component(folder.read("reference"), folder.file("reference"))
    train, held_out = recipe_data(folder)
    reference = make_reference(
        pipeline.network("feature_extractor"), once(train), once(held_out), device=pipeline.device
    )
    reference.save(folder.file("reference"))
    return Reference.load(folder.file("reference"))


def recipe_data(folder: ModelFolder) -> tuple[Dataset, Dataset]:
    """The training data and the held-out data of a model's recipe; ValueError when it has none, or they are gone."""
    config = folder.recipe()
    if config is None:
        raise ValueError(f"{folder.path} holds no recipe.yaml, so its training data are not known; use its run folder")
    modality = build(config.get("modality"), "modality")
    data = config.get("data")
    if isinstance(data, dict):
        data = {
            **data,
            **{key: None for key in WRITTEN if key in data},
        }  # a recipe that came with a model says not where to write
    train, held_out = (build(data, "data", modality=modality, split=split) for split in ("train", "held_out"))
    return train, held_out


def once(dataset: Dataset) -> Iterator[Batch]:
    """Every example of a dataset once, in order, as it is without augmentation."""
    for first in range(0, len(dataset), BATCH_SIZE):
        yield gather(dataset, range(first, min(first + BATCH_SIZE, len(dataset))))

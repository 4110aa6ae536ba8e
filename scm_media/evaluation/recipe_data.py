"""Reference statistics of a run that has none yet, taken from the data that its recipe names."""

from __future__ import annotations

from collections.abc import Iterator

import yaml

from scm_media.build import build
from scm_media.data import Batch, Dataset, gather
from scm_media.evaluation.reference import Reference, make_reference
from scm_media.pipeline import Pipeline

BATCH_SIZE = 250


def reference_of(pipeline: Pipeline) -> Reference:
    """The statistics that a model carries; a run's are made from its recipe's data once, and kept in its folder.

    Raises ValueError when there are none and no recipe to make them by, or its data are not there.
    """
    folder = pipeline.folder
    recipe = folder.path / "recipe.yaml"
    if folder.has("reference") or not (folder.is_run and recipe.is_file()):
        return Reference.from_component(folder.read("reference"), folder.file("reference"))
    config = yaml.safe_load(recipe.read_text(encoding="utf-8"))
    train, held_out = (
        _once(build(config["data"], modality=build(config["modality"]), split=split)) for split in ("train", "held_out")
    )
    reference = make_reference(pipeline.network("embedder"), train, held_out, device=pipeline.device)
    reference.save(folder.file("reference"))
    return Reference.load(folder.file("reference"))


def _once(dataset: Dataset) -> Iterator[Batch]:
    """Every example of a dataset once, in order, as it is without augmentation."""
    for first in range(0, len(dataset), BATCH_SIZE):
        yield gather(dataset, range(first, min(first + BATCH_SIZE, len(dataset))))

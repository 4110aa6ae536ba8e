"""The bundled models: whole, small enough to ship, with a feature network good enough to measure by."""

from __future__ import annotations

import json

import pytest

from scm_media.evaluation import Reference
from scm_media.pipeline import ModelFolder, bundled_names
from scm_media.pipeline.card import metrics_table
from scm_media.pipeline.model_folder import NETWORKS

MEGABYTE = 1e6
GUIDED_BY_ANOTHER = ("image/fashion",)
"""Models whose teacher is steered away from a smaller network; the others' by leaving labels out."""

NUM_TRAIN = {
    "image/fashion": 60_000,
    "image/emoji-text": 7_156,
    "audio/notes": 31_104,
    "audio/notes-text": 31_047,
    "video/scenes": 10_219,
}
FEWEST_SAMPLES = {
    "image/fashion": 10_000,
    "image/emoji-text": 2_000,
    "audio/notes": 5_000,
    "audio/notes-text": 2_000,
    "video/scenes": 2_048,
}
MEGABYTES = {"image/fashion": 15, "image/emoji-text": 20, "audio/notes": 15, "audio/notes-text": 20, "video/scenes": 20}


@pytest.fixture(scope="module", params=NUM_TRAIN)
def folder(request) -> ModelFolder:
    assert request.param in bundled_names(), f"models/{request.param} is not there yet"
    return ModelFolder.open(request.param)


def test_all_networks_and_statistics_are_there(folder):
    name = folder.description.name
    for part in (*NETWORKS, "reference"):
        assert folder.has(part) == (part != "guide" or name in GUIDED_BY_ANOTHER), part
    assert (folder.path / "recipe.yaml").is_file()
    assert not folder.is_run


def test_it_is_small_enough_to_ship(folder):
    size = {path.name: path.stat().st_size for path in folder.path.rglob("*") if path.is_file()}
    assert sum(size.values()) <= MEGABYTES[folder.description.name] * MEGABYTE, size
    assert size["feature_extractor.safetensors"] + size["reference.safetensors"] <= 2 * MEGABYTE, size


def test_the_feature_network_tells_held_out_data_apart(folder):
    reference = Reference.load(folder.file("reference"))
    assert reference.num_train == NUM_TRAIN[folder.description.name]
    assert reference.accuracy >= 0.91


def test_figures_are_of_enough_samples_and_stand_on_the_card(folder):
    metrics = folder.metrics()
    assert metrics is not None, "scm-media evaluate RUN makes metrics.json"
    assert metrics["num_samples"] == FEWEST_SAMPLES[folder.description.name]
    assert metrics_table(metrics) in (folder.path / "README.md").read_text(encoding="utf-8")
    json.dumps(metrics, allow_nan=False)

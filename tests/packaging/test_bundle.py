"""The bundled model: whole, small enough to ship, with a feature network good enough to measure by."""

from __future__ import annotations

import json

import pytest

from scm_media.evaluation import Reference
from scm_media.pipeline import ModelFolder, bundled_names
from scm_media.pipeline.card import metrics_table
from scm_media.pipeline.folder import NETWORKS

MEGABYTE = 1e6


@pytest.fixture(scope="module")
def folder() -> ModelFolder:
    assert "image/fashion" in bundled_names(), "models/image/fashion is not there yet"
    return ModelFolder.open("image/fashion")


def test_all_networks_and_statistics_are_there(folder):
    for name in (*NETWORKS, "reference"):
        assert folder.has(name), name
    assert (folder.path / "recipe.yaml").is_file()


def test_it_is_small_enough_to_ship(folder):
    size = {path.name: path.stat().st_size for path in folder.path.rglob("*") if path.is_file()}
    assert sum(size.values()) <= 15 * MEGABYTE, size
    assert size["embedder.safetensors"] + size["reference.safetensors"] <= 2 * MEGABYTE, size


def test_the_feature_network_tells_held_out_pictures_apart(folder):
    reference = Reference.load(folder.file("reference"))
    assert reference.num_train == 60_000
    assert reference.agreement >= 0.91


def test_figures_are_of_ten_thousand_samples_and_stand_on_the_card(folder):
    metrics = folder.metrics()
    assert metrics is not None, "scm-media evaluate RUN makes metrics.json"
    assert metrics["num_samples"] == 10_000
    assert metrics_table(metrics) in (folder.path / "README.md").read_text(encoding="utf-8")
    json.dumps(metrics, allow_nan=False)

"""Model folders of format 1: refused with the remedy, and converted with the same samples."""

from __future__ import annotations

import json

import pytest
import torch

import scm_media
from scm_media import weights
from scm_media.cli import main
from tests.pipeline.tiny import write_tiny_model

OLD = {"mask": "known", "actions": "aligned"}


@pytest.fixture
def old(tmp_path):
    """Writes a model as format 1 had it: other names of keys, files and tensors."""
    folder = write_tiny_model(tmp_path / "old")
    description = json.loads((folder / "model.json").read_text())
    description = {OLD.get(key, key): value for key, value in description.items()} | {"format": 1, "aligned": []}
    description["known"] = {"probability": 0.5, "kinds": ["start"], "axis": -1, "share": [0.1, 0.9]}
    (folder / "model.json").write_text(json.dumps(description))
    if (folder / "feature_extractor.safetensors").exists():
        (folder / "feature_extractor.safetensors").rename(folder / "embedder.safetensors")
    (folder / "recipe.yaml").write_text("embedder: null\nteacher: {loss: {proposal: {mean: 0.0}}}\n")
    (folder / "metrics.json").write_text(json.dumps({"rows": [{"agreement": 0.5}], "frechet_floor": 1.0}))
    reference = {"floors": torch.ones(1), "floor_sizes": torch.ones(1, dtype=torch.int64)}
    weights.save(folder / "reference.safetensors", reference, {"_target_": "x"}, {"agreement": 0.5})
    return folder


def test_a_folder_of_format_1_is_refused_with_the_command_that_converts_it(old):
    with pytest.raises(ValueError, match=r"format 1, this version reads 2: scm-media convert .*old NEW_FOLDER"):
        scm_media.load(old)


def test_a_converted_folder_makes_the_same_samples_under_todays_names(tmp_path, old):
    expected = scm_media.load(write_tiny_model(tmp_path / "today"), "cpu")(2, steps=1).samples
    before = {file.name: file.read_bytes() for file in old.iterdir()}
    assert main(["convert", str(old), str(tmp_path / "new")]) == 0
    assert {file.name: file.read_bytes() for file in old.iterdir()} == before
    pipeline = scm_media.load(tmp_path / "new", "cpu")
    assert torch.equal(pipeline(2, steps=1).samples, expected)
    description = json.loads((tmp_path / "new" / "model.json").read_text())
    assert description["mask"] == {"probability": 0.5, "types": ["start"], "axis": -1, "fraction": [0.1, 0.9]}
    assert description["format"] == 2
    assert description["actions"] == []
    recipe = (tmp_path / "new" / "recipe.yaml").read_text()
    assert "feature_extractor: null" in recipe
    assert "timesteps:" in recipe
    figures = json.loads((tmp_path / "new" / "metrics.json").read_text())
    assert figures == {"rows": [{"accuracy": 0.5}], "frechet_held_out": 1.0}
    component = weights.read(tmp_path / "new" / "reference.safetensors")
    assert set(component.state) == {"held_out_distances", "held_out_sizes"}
    assert component.info == {"accuracy": 0.5}


def test_what_is_no_old_model_and_a_target_that_exists_are_refused(tmp_path, old, capsys):
    assert main(["convert", str(tmp_path), str(tmp_path / "new")]) == 1
    assert "holds no model.json" in capsys.readouterr().err
    assert main(["convert", str(old), str(old)]) == 1
    assert "exists; name a folder that does not" in capsys.readouterr().err
    today = write_tiny_model(tmp_path / "today")
    assert main(["convert", str(today), str(tmp_path / "new")]) == 1
    assert "is not of format 1" in capsys.readouterr().err

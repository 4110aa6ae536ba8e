"""Model folders: both layouts, round trips, and what is said of broken ones."""

from __future__ import annotations

import errno
import json
import shutil

import pytest
import safetensors.torch
import torch
import yaml

import scm_media
from scm_media import weights
from scm_media.pipeline import ModelFolder, find_folder
from tests.pipeline.tiny import write_tiny_model


def test_run_folders_and_model_folders_give_the_same_clips(tiny_model, tmp_path):
    run = write_tiny_model(tmp_path / "run", run_folder=True)
    assert torch.equal(scm_media.load(run, "cpu")(3).samples, scm_media.load(tiny_model, "cpu")(3).samples)


def test_save_pretrained_round_trip_is_bit_equal(tiny_model, tmp_path):
    pipeline = scm_media.load(tiny_model, "cpu")
    folder = pipeline.save_pretrained(tmp_path / "copy")
    again = scm_media.Pipeline.from_pretrained(folder, "cpu")
    assert torch.equal(again(3).samples, pipeline(3).samples)
    assert torch.equal(again(3, teacher=True).samples, pipeline(3, teacher=True).samples)
    card = (folder / "README.md").read_text()
    assert "test/tiny" in card
    assert "circle, Ankle boot, T-shirt/top" in card
    assert "Not evaluated" in card
    assert 'scm_media.load("path/to/this/folder")' in card
    assert 'load("test/tiny")' not in card, "only a bundled model goes by its name"


def test_what_was_changed_in_memory_is_what_is_saved(tiny_model, tmp_path):
    pipeline = scm_media.load(tiny_model, "cpu")
    for parameter in pipeline.network("student").parameters():
        parameter.mul_(0.5)
    again = scm_media.load(pipeline.save_pretrained(tmp_path / "copy"), "cpu")
    assert torch.equal(again(2).samples, pipeline(2).samples)


def test_half_precision_halves_the_files_and_stays_near(tiny_model, tmp_path):
    pipeline = scm_media.load(tiny_model, "cpu")
    folder = pipeline.save_pretrained(tmp_path / "half", dtype=torch.float16, teacher=False)
    state = weights.read(folder / "student.safetensors").state
    assert {tensor.dtype for tensor in state.values()} == {torch.float16}
    half = scm_media.load(folder, "cpu")
    assert (half(3).samples - pipeline(3).samples).abs().max() < 0.01
    with pytest.raises(ValueError, match=r"holds no teacher \(it has: autoencoder, student, feature_extractor\)"):
        half(1, teacher=True)


def test_a_model_is_not_exported_over_itself(tiny_model):
    with pytest.raises(ValueError, match="own folder"):
        scm_media.load(tiny_model, "cpu").save_pretrained(tiny_model)


def test_no_space_left_keeps_the_exported_model_whole(tiny_model, tmp_path, monkeypatch):
    pipeline = scm_media.load(tiny_model, "cpu")
    folder = pipeline.save_pretrained(tmp_path / "copy")
    before = {file.name: file.read_bytes() for file in folder.iterdir()}

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(weights.os, "fsync", full)
    with pytest.raises(OSError, match=r"was not written .No space left on device"):
        pipeline.save_pretrained(folder, dtype=torch.float16, overwrite=True)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


def test_truncated_and_foreign_weights_give_one_clear_error(tiny_model, tmp_path):
    folder = shutil.copytree(tiny_model, tmp_path / "broken")
    student = folder / "student.safetensors"
    whole = student.read_bytes()
    student.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"student.safetensors is no whole safetensors file"):
        scm_media.load(folder, "cpu")(1)
    component = weights.read(tiny_model / "student.safetensors")
    safetensors.torch.save_file(component.state, student)
    with pytest.raises(ValueError, match=r"student.safetensors has no configuration in its header"):
        scm_media.load(folder, "cpu")(1)
    state = {("theirs." + name if "patch_out" in name else name): value for name, value in component.state.items()}
    weights.save(student, state, component.config)
    with pytest.raises(ValueError, match=r"missing: patch_out.*unexpected: theirs.patch_out") as caught:
        scm_media.load(folder, "cpu")(1)
    assert "\n" not in str(caught.value)


def test_weights_that_ask_for_a_foreign_class_are_refused(tiny_model, tmp_path):
    folder = shutil.copytree(tiny_model, tmp_path / "evil")
    component = weights.read(folder / "student.safetensors")
    weights.save(folder / "student.safetensors", component.state, {"_target_": "os.system", "command": "true"})
    with pytest.raises(ValueError, match=r"os.system"):
        scm_media.load(folder, "cpu")(1)


def test_folders_that_are_no_models_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"holds no model.json"):
        ModelFolder.open(tmp_path)
    (tmp_path / "model.json").write_text("{")
    with pytest.raises(ValueError, match="no valid JSON"):
        ModelFolder.open(tmp_path)
    (tmp_path / "model.json").write_text(json.dumps({"name": "x"}))
    with pytest.raises(ValueError, match="lacks modality, flow"):
        ModelFolder.open(tmp_path)


def test_unknown_names_list_the_nearest(monkeypatch):
    monkeypatch.setattr("scm_media.pipeline.hub.bundled_names", lambda: ["image/fashion", "audio/notes"])
    with pytest.raises(ValueError, match=r"no model 'image/fasion'.*\(image/fashion\)"):
        find_folder("image/fasion")


def test_the_hub_needs_its_package_and_a_whole_name(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(ValueError, match="pip install huggingface_hub"):
        find_folder("hf://org/name")
    with pytest.raises(ValueError, match="expected hf://org/name"):
        find_folder("hf://name")


def test_an_exported_recipe_does_not_tell_where_things_lay(tiny_model, tmp_path):
    source = shutil.copytree(tiny_model, tmp_path / "run")
    recipe = {
        "recipe": "image/tiny",
        "run_dir": "/home/me/runs/secret",
        "init_from": "/home/me/runs/earlier",
        "data": {"root": "/home/me/pictures", "num": 3},
    }
    (source / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    folder = scm_media.load(source, "cpu").save_pretrained(tmp_path / "out")
    assert yaml.safe_load((folder / "recipe.yaml").read_text()) == {
        "recipe": "image/tiny",
        "run_dir": "runs/image/tiny/main",
        "init_from": "earlier",
        "data": {"root": None, "num": 3},
    }
    recipe["data"] = {"path": "/home/me/list.csv", "index": "/home/me/index", "shards": ["/home/me/a.tar", "b/c.tar"]}
    (source / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    folder = scm_media.load(source, "cpu").save_pretrained(tmp_path / "again")
    data = yaml.safe_load((folder / "recipe.yaml").read_text())["data"]
    assert data == {"path": "list.csv", "index": None, "shards": ["a.tar", "b/c.tar"]}

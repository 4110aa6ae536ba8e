"""Files that are written stay below their folder, and say nothing of this machine's folders."""

from __future__ import annotations

import json

import pytest
import yaml

import scm_media
from scm_media import weights
from scm_media.cli import main
from scm_media.pipeline import ModelFolder
from scm_media.pipeline.export import base_name, export, without_folders
from scm_media.pipeline.hub import find_folder, folder_name
from tests.pipeline.tiny import write_tiny_model


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("/home/me/private/vae.safetensors", "vae.safetensors"),
        ("C:\\Users\\me\\vae.safetensors", "vae.safetensors"),
        ("\\\\server\\share\\x.wav", "x.wav"),
        ("~/sounds", "sounds"),
        ("runs/image/tiny/main", "runs/image/tiny/main"),
        ("T-shirt/top", "T-shirt/top"),
        ("", ""),
    ],
)
def test_absolute_paths_are_cut_to_their_last_part(text, name):
    assert base_name(text) == name
    assert without_folders({"a": [{"weights": text}]}) == {"a": [{"weights": name}]}


def test_names_that_users_gave_stay():
    assert without_folders({"labels": {"class": ["/r/", "/l/"]}}) == {"labels": {"class": ["/r/", "/l/"]}}


def every_text(folder):
    """Yields the content of every file of a model folder, headers included."""
    for file in folder.rglob("*"):
        if file.is_file():
            yield file.name, file.read_bytes().decode("latin-1")


def test_an_export_says_nothing_of_this_machine(tmp_path):
    model = write_tiny_model(tmp_path / "secret-place" / "model")
    place = str(tmp_path / "secret-place")
    component = weights.read(model / "autoencoder.safetensors")
    weights.save(
        model / "autoencoder.safetensors", component.state, component.config, {"init_from": f"{place}/a", "step": 3}
    )
    recipe = {
        "recipe": "image/mine",
        "run_dir": f"{place}/runs",
        "init_from": f"{place}/before",
        "data": {"root": place, "path": f"{place}/list.jsonl", "index": place, "shards": [f"{place}/0.tar"]},
        "logger": {"_target_": "lightning_fabric.loggers.CSVLogger", "root_dir": place},
        "autoencoder": {"network": {"weights": f"{place}/vae.safetensors"}},
    }
    (model / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    (model / "memorization.json").write_text(json.dumps({}))
    (model / "memorization.json").unlink()
    out = export(ModelFolder.open(model), tmp_path / "out")
    assert [name for name, text in every_text(out) if "secret-place" in text] == []
    written = yaml.safe_load((out / "recipe.yaml").read_text())
    assert written["autoencoder"]["network"]["weights"] == "vae.safetensors"
    assert written["data"] == {"root": None, "path": "list.jsonl", "index": None, "shards": ["0.tar"]}
    assert "root_dir" not in written["logger"]
    assert weights.read(out / "autoencoder.safetensors").info == {"init_from": "a", "step": 3}


def test_a_clip_says_nothing_of_this_machine(tmp_path):
    model = write_tiny_model(tmp_path / "secret-place" / "model")
    assert main(["generate", str(model), "--out", str(tmp_path / "clips"), "-n", "2"]) == 0
    texts = list(every_text(tmp_path / "clips"))
    assert len(texts) == 2 and all("secret-place" not in text for _, text in texts)


def test_files_that_are_no_figures_do_not_go_along(tmp_path):
    model = write_tiny_model(tmp_path / "model")
    (model / "metrics-stolen.json").write_text("ssh-rsa AAAA")
    with pytest.raises(ValueError, match=r"metrics-stolen\.json is no valid JSON"):
        export(ModelFolder.open(model), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (model / "metrics-stolen.json").unlink()
    (model / "reference-stolen.safetensors").write_text("ssh-rsa AAAA")
    with pytest.raises(ValueError, match=r"reference-stolen\.safetensors is no whole safetensors file"):
        export(ModelFolder.open(model), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("../../x", "_/_/x"),
        ("/etc/x", "_/etc/x"),
        ("image/fashion", "image/fashion"),
        ("a\x00b\n", "a_b_"),
        ("..", "_"),
    ],
)
def test_a_models_name_is_a_folder_below_any_other(name, folder, tmp_path):
    assert folder_name(name) == folder
    assert (tmp_path / folder_name(name)).resolve().is_relative_to(tmp_path)


@pytest.mark.parametrize("name", ["hf://../x", "hf://org/..", "hf://org/name/more", "hf:///x", "hf://org/.hidden"])
def test_a_name_of_the_hub_is_two_plain_words(name):
    with pytest.raises(ValueError, match="is no model of the hub"):
        find_folder(name)


def test_what_is_exported_loads_and_makes_the_same(tmp_path):
    model = write_tiny_model(tmp_path / "model")
    before = scm_media.load(model)(2, seed=1).samples
    out = export(ModelFolder.open(model), tmp_path / "out")
    assert scm_media.load(out)(2, seed=1).samples.equal(before)

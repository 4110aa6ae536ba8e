"""A model in one file makes the same samples as its folder, and carries what a folder carries."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import replace

import pytest
import torch
import yaml

import scm_media
from scm_media import weights
from scm_media.cli import main
from scm_media.pipeline import ModelFolder
from scm_media.pipeline.card import format_card
from scm_media.pipeline.export import export
from scm_media.pipeline.model_file import ModelFile, export_file
from tests.pipeline.moves import write_moves_model
from tests.pipeline.tiny import DESCRIPTION, write_tiny_model
from tests.pipeline.tiny_media import MODELS, write_tiny


def export_tiny(tmp_path, **arguments):
    """Returns a folder and its export to one file."""
    folder = write_tiny_model(tmp_path / "model")
    return folder, export_file(ModelFolder.open(folder), tmp_path / "model.safetensors", **arguments)


@pytest.mark.parametrize("kind", sorted(MODELS))
def test_the_samples_of_file_and_folder_are_equal_to_the_bit(tmp_path, kind):
    folder = write_tiny(kind, tmp_path / "model")
    file = export_file(ModelFolder.open(folder), tmp_path / "model.safetensors", teacher=True)
    ours, theirs = scm_media.load(file, "cpu"), scm_media.load(folder, "cpu")
    for arguments in ({"steps": 2}, {"steps": 1, "label": "high"}, {"teacher": True, "guidance": 2.0}):
        made = ours(3, seed=5, **arguments)
        assert torch.equal(made.samples, theirs(3, seed=5, **arguments).samples)
        assert float(made.samples.std()) > 0.01
    task = {"region": (0, 8, 0, 8)} if kind == "image" else {"keep": 0.1 if kind == "audio" else 2}
    task = {"task": "inpaint" if kind == "image" else "continue", "source": made.samples[0], "seed": 1, **task}
    assert torch.equal(ours.edit(**task).samples, theirs.edit(**task).samples)


def test_commands_open_a_file_like_a_folder(tmp_path, capsys):
    folder, file = export_tiny(tmp_path)
    pictures = []
    for model, name in ((folder, "folder"), (file, "file")):
        assert main(["generate", str(model), "-n", "2", "--out", str(tmp_path / name), "--device", "cpu"]) == 0
        pictures.append([path.name for path in sorted((tmp_path / name).iterdir())])
    assert pictures[0] == pictures[1]
    picture = tmp_path / "file" / pictures[1][0]
    edit = ["edit", str(file), "--task", "inpaint", "--input", str(picture), "--region", "0", "8", "0", "16"]
    assert main([*edit, "--out", str(tmp_path / "edited"), "--device", "cpu"]) == 0
    assert len(list((tmp_path / "edited").iterdir())) == 1


def test_what_belongs_to_the_training_machine_stays_there_and_the_rest_goes_along(tmp_path, allowed):
    folder = write_moves_model(tmp_path / "model", data="/home/me/data")
    recipe = {
        "recipe": "mine/tiny",
        "run_dir": "/home/me/runs",
        "data": {"root": "/home/me/data"},
        "text": "${oc.env:A}",
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    (folder / "memorization.json").write_text('{"nearest": 1}')
    weights.save(folder / "reference-frames.safetensors", {"mean": torch.ones(3)}, {}, {"num_train": 4})
    source = ModelFolder.open(folder)
    file = export_file(source, tmp_path / "model.safetensors")
    found = ModelFolder.open(file)
    assert isinstance(found, ModelFile)
    assert b"/home/me" not in file.read_bytes()
    assert found.recipe() == {
        "recipe": "mine/tiny",
        "run_dir": "runs/mine/tiny/main",
        "data": {"root": None},
        **{"text": "${oc.env:A}"},
    }
    assert found.description == replace(source.description, data="data")
    assert found.memorization() == {"nearest": 1}
    assert (found.metrics(), found.second_opinions()) == (None, {})
    assert found.named_references() == ["reference-frames"]
    assert [name for name in ("autoencoder", "student", "teacher", "guide", "prompts") if found.has(name)] == [
        "autoencoder",
        "student",
    ]
    for name in ("action_bank", "reference-frames"):
        ours, theirs = found.read(name), source.read(name)
        assert weights.digest(ours) == weights.digest(theirs)
        assert ours.info == theirs.info
    made = scm_media.load(file, "cpu")(2, seed=0)
    assert torch.equal(made.actions, scm_media.load(folder, "cpu")(2, seed=0).actions)


def test_a_file_becomes_a_folder_again(tmp_path):
    folder, file = export_tiny(tmp_path, teacher=True)
    again = export(ModelFolder.open(file), tmp_path / "again")
    for name in ("autoencoder", "student", "teacher", "feature_extractor"):
        ours, theirs = (ModelFolder.open(path).read(name) for path in (again, folder))
        assert weights.digest(ours) == weights.digest(theirs)
    assert ModelFolder.open(again).description == DESCRIPTION
    assert format_card(ModelFolder.open(file)) == format_card(ModelFolder.open(folder))


def test_the_teacher_is_left_out_unless_it_is_asked_for(tmp_path, capsys):
    folder = write_tiny_model(tmp_path / "model")
    for flags, has in (([], False), (["--teacher"], True), (["--no-teacher"], False)):
        file = tmp_path / f"{len(flags)}{has}.safetensors"
        assert main(["export", str(folder), str(file), "--format", "safetensors", "--overwrite", *flags]) == 0
        assert ModelFolder.open(file).has("teacher") == has
        assert ("without the teacher (--teacher takes it along)" in capsys.readouterr().out) == (not has)
    assert main(["generate", str(file), "--teacher", "--device", "cpu", "--out", str(tmp_path)]) == 1
    assert "holds no teacher (it has: autoencoder, student, feature_extractor)" in capsys.readouterr().err


def test_weights_are_stored_in_the_precision_that_is_asked_for(tmp_path):
    folder, file = export_tiny(tmp_path, dtype=torch.float16)
    assert ModelFolder.open(file).read("student").state["patch_out.weight"].dtype == torch.float16
    large = weights.read(folder / "student.safetensors")
    large.state["patch_out.weight"][0] = 1e9
    weights.save(folder / "student.safetensors", large.state, large.config)
    with pytest.raises(ValueError, match=r"b\.safetensors: patch_out\.weight holds 1e\+09, which does not fit"):
        export_file(ModelFolder.open(folder), tmp_path / "b.safetensors", torch.float16)
    assert not (tmp_path / "b.safetensors").exists()


def test_an_existing_file_is_refused_or_replaced_as_a_whole(tmp_path, capsys):
    folder, file = export_tiny(tmp_path)
    before = file.read_bytes()
    command = ["export", str(folder), str(file), "--format", "safetensors"]
    assert main(command) == 1
    assert f"{file} exists: export to another file, or replace it by --overwrite" in capsys.readouterr().err
    assert file.read_bytes() == before
    assert main([*command, "--overwrite", "--teacher"]) == 0
    assert ModelFolder.open(file).has("teacher")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "model.safetensors"]


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("x.bin", "name a file that ends in .safetensors"),
        ("folder.safetensors", "is a folder"),
        ("model/teacher.safetensors", "is a model's folder, which keeps its own files"),
        ("model/student/weights.safetensors", "is a model's folder, which keeps its own files"),
        ("model.safetensors", "is the model's own file"),
    ],
)
def test_targets_that_would_do_harm_are_refused_even_with_overwrite(tmp_path, target, message):
    _, file = export_tiny(tmp_path)
    (tmp_path / "folder.safetensors").mkdir()
    with pytest.raises(ValueError, match=message):
        export_file(ModelFolder.open(file), tmp_path / target, overwrite=True)


def test_a_write_that_fails_leaves_the_earlier_file(tmp_path, monkeypatch):
    folder, file = export_tiny(tmp_path)
    before = file.read_bytes()

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"model\.safetensors was not written"):
        export_file(ModelFolder.open(folder), file, teacher=True, overwrite=True)
    assert file.read_bytes() == before
    assert list(tmp_path.glob(".*")) == []


def test_a_description_that_no_header_holds_is_refused_before_anything_is_written(tmp_path):
    classes = [f"{number:0200}" for number in range(25_000)]
    folder = write_tiny_model(tmp_path / "model")
    source = ModelFolder.open(folder)
    source = replace(source, description=replace(DESCRIPTION, labels={"class": classes}, label_counts={"class": []}))
    with pytest.raises(ValueError, match=r"bytes together, a file takes 4194304; export a folder"):
        export_file(source, tmp_path / "x.safetensors")
    assert not (tmp_path / "x.safetensors").exists()


def test_a_file_is_not_written_to(tmp_path, capsys):
    _, file = export_tiny(tmp_path)
    with pytest.raises(ValueError, match="is a model in one file, which is not written to"):
        ModelFolder.open(file).redescribe(lambda written: replace(written, data="mine"))


def test_a_file_of_one_network_is_no_model(tmp_path):
    folder, _ = export_tiny(tmp_path)
    with pytest.raises(ValueError, match=r"student\.safetensors holds no whole model .*--format safetensors"):
        scm_media.load(folder / "student.safetensors")
    with pytest.raises(ValueError, match=r"model\.json is no model: give a folder, or a file that ends in"):
        scm_media.load(folder / "model.json")


def test_damage_in_a_part_is_noticed_when_the_part_is_read(tmp_path):
    folder, file = export_tiny(tmp_path, teacher=True)
    content = bytearray(file.read_bytes())
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(bytes(content[8:start]))
    content[start + header["student/patch_out.weight"]["data_offsets"][0] + 2] ^= 1
    file.write_bytes(content)
    damaged = scm_media.load(file, "cpu")
    with pytest.raises(ValueError, match=r"its student does not have the digest"):
        damaged(1)
    expected = scm_media.load(folder, "cpu")(1, seed=0, teacher=True).samples
    assert torch.equal(damaged(1, seed=0, teacher=True).samples, expected)

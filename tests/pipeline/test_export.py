"""Exports never mix: a folder holds one whole model, or none."""

from __future__ import annotations

import errno
import json
import os
import signal

import pytest
import torch

import scm_media
from scm_media import weights
from scm_media.cli import main
from scm_media.pipeline import export as exporting
from tests.pipeline.tiny import write_tiny_model


@pytest.fixture
def pipeline(tiny_model):
    return scm_media.load(tiny_model, "cpu")


def contents(folder) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def earlier(pipeline, folder):
    """An earlier export of a model that had more, in a folder that is a clone of a repository."""
    pipeline.save_pretrained(folder)
    (folder / "metrics-other.json").write_text("{}")
    (folder / ".git").mkdir()
    (folder / ".git" / "HEAD").write_text("ref: refs/heads/main")
    (folder / "LICENSE").write_text("theirs")
    return folder


def test_a_folder_that_holds_a_model_is_refused_and_left_as_it_was(pipeline, tmp_path, tiny_model, capsys):
    folder = earlier(pipeline, tmp_path / "out")
    before = contents(folder)
    with pytest.raises(ValueError, match=r"out holds a model already: export to another folder, or .*--overwrite"):
        pipeline.save_pretrained(folder, teacher=False)
    assert main(["export", str(tiny_model), str(folder)]) == 1
    assert "holds a model already" in capsys.readouterr().err
    assert contents(folder) == before


def test_overwriting_replaces_all_of_an_earlier_export_and_nothing_else(pipeline, tmp_path, tiny_model):
    folder = earlier(pipeline, tmp_path / "out")
    assert main(["export", str(tiny_model), str(folder), "--no-teacher", "--precision", "float16", "--overwrite"]) == 0
    assert sorted(path.name for path in folder.iterdir()) == [
        ".git",
        "LICENSE",
        "README.md",
        "autoencoder.safetensors",
        "feature_extractor.safetensors",
        "model.json",
        "samples.png",
        "student.safetensors",
    ]
    assert (folder / ".git" / "HEAD").read_text() == "ref: refs/heads/main"
    assert (folder / "LICENSE").read_text() == "theirs"
    assert weights.read(folder / "student.safetensors").state["patch_out.weight"].dtype == torch.float16


def test_a_folder_of_other_files_is_used_and_a_stray_weight_file_is_not_mixed_in(pipeline, tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    pipeline.save_pretrained(folder, teacher=False)
    assert (folder / "notes.txt").read_text() == "mine"
    stray = tmp_path / "stray"
    stray.mkdir()
    (stray / "teacher.safetensors").write_bytes(b"another model's")
    with pytest.raises(ValueError, match=r"stray holds teacher\.safetensors already"):
        pipeline.save_pretrained(stray, teacher=False)
    pipeline.save_pretrained(stray, teacher=False, overwrite=True)
    assert not (stray / "teacher.safetensors").exists()


def test_run_folders_and_files_are_refused(pipeline, tmp_path):
    run = write_tiny_model(tmp_path / "run", run_folder=True)
    with pytest.raises(ValueError, match="is a run folder"):
        pipeline.save_pretrained(run, overwrite=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="is a file; export to a folder"):
        pipeline.save_pretrained(tmp_path / "file")


@pytest.mark.parametrize("overwrite", [False, True])
def test_an_error_on_the_way_leaves_the_folder_as_it_was(pipeline, tmp_path, monkeypatch, overwrite):
    folder = tmp_path / "out"
    if overwrite:
        earlier(pipeline, folder)
    before = contents(tmp_path)

    def full(*_args, **_kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(exporting, "format_card", full)
    with pytest.raises(OSError, match="No space left on device"):
        pipeline.save_pretrained(folder, overwrite=overwrite)
    assert contents(tmp_path) == before
    assert folder.exists() == overwrite


def export_and_be_killed(pipeline, folder, number: int) -> bool:
    """Exports in a process that is killed before its renaming of this number; returns whether it came to that."""
    child = os.fork()
    if child == 0:
        replace, done = os.replace, 0

        def killed(source, target):
            nonlocal done
            done += 1
            if done == number:
                os.kill(os.getpid(), signal.SIGKILL)
            replace(source, target)

        os.replace = killed
        try:
            pipeline.save_pretrained(folder, overwrite=True)
        finally:
            os._exit(0)
    return os.waitpid(child, 0)[1] != 0


@pytest.mark.parametrize("number", [1, 4, 8, 10, 14])
@pytest.mark.parametrize("there", [False, True])
def test_a_killed_export_leaves_no_mixture(pipeline, tmp_path, there, number):
    folder = tmp_path / "out"
    if there:
        earlier(pipeline, folder)
        component = weights.read(folder / "student.safetensors")
        other = {name: tensor * 2 for name, tensor in component.state.items()}
        weights.save(folder / "student.safetensors", other, component.config)
    before = contents(tmp_path)
    killed = export_and_be_killed(pipeline, folder, number)
    assert killed == (there or number <= 8)
    found = list(tmp_path.rglob("model.json"))
    if killed and found:
        kept = {name: content for name, content in contents(tmp_path).items() if ".part/" not in name}
        assert kept == before
    pipeline.save_pretrained(folder, overwrite=True)
    assert list(tmp_path.rglob("*.part")) == []
    assert [file.parent for file in tmp_path.rglob("model.json")] == [folder]
    assert torch.equal(scm_media.load(folder, "cpu")(2).samples, pipeline(2).samples)
    assert json.loads((folder / "model.json").read_text())["name"] == "test/tiny"
    if there:
        assert (folder / "LICENSE").read_text() == "theirs"


def test_a_link_to_a_folder_stays_a_link(pipeline, tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    pipeline.save_pretrained(tmp_path / "link")
    assert os.path.islink(tmp_path / "link")
    assert (tmp_path / "real" / "model.json").is_file()

"""``convert`` of a pipeline of diffusers: a model folder with a teacher, and a check that can fail."""

from __future__ import annotations

import json

import pytest
import torch

from scm_media import weights
from scm_media.adapters import load_teacher
from scm_media.cli import main
from scm_media.pipeline import Pipeline
from tests.adapters.pipelines import save_pipeline

diffusers = pytest.importorskip("diffusers")


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    """A pipeline of pictures without labels."""
    return save_pipeline("image", tmp_path_factory.mktemp("pipeline") / "ddpm")


def test_the_model_folder_samples_the_teacher_and_the_check_says_what_it_found(pipeline, tmp_path, capsys):
    target = tmp_path / "model"
    assert main(["convert", str(pipeline), str(target), "--check", "--steps", "2"]) == 0
    said = capsys.readouterr()
    assert said.out.strip() == str(target)
    assert "UNet2DModel as EpsPrediction, latents of 3×8×8" in said.err and "dF/dt" in said.err
    model = Pipeline.from_pretrained(target, device="cpu")
    u, t = torch.randn(2, 3, 8, 8), torch.tensor([0.4, 1.2])
    assert torch.equal(model.network("teacher")(u, t, None), load_teacher(pipeline)(u, t))
    assert model.folder.description.sample_shape == [3, 8, 8] and model.flow.sigma_data == 1
    assert main(["generate", str(target), "--teacher", "--steps", "2", "-n", "1", "--out", str(tmp_path / "out")]) == 0
    assert weights.read(target / "teacher.safetensors").info["source"] == "ddpm"


def test_the_check_fails_where_samples_differ(pipeline, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("scm_media.adapters.checking.SAME", 1e-12)
    assert main(["convert", str(pipeline), "--check", "--steps", "2", "--latent", "3,8,8"]) == 1
    assert "samples differ from those of its own scheduler" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--check", "--latent", "3"], "--latent must be channels and sizes"),
        (["--check", "--latent", "3,x,8"], "got 3,x,8"),
    ],
)
def test_wrong_flags_are_named(pipeline, words, message, capsys):
    assert main(["convert", str(pipeline), *words]) == 1
    assert message in capsys.readouterr().err


def test_only_pipelines_are_checked_and_no_folder_is_overwritten(pipeline, tmp_path, capsys):
    assert main(["convert", "image/fashion", "--check"]) == 1
    assert "has no model_index.json: --check compares pipelines of diffusers" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main(["convert", str(pipeline)])
    (tmp_path / "there").mkdir()
    assert main(["convert", str(pipeline), str(tmp_path / "there")]) == 1
    assert "exists; name a folder that does not" in capsys.readouterr().err


def test_a_scheduler_that_is_missing_is_named(pipeline, tmp_path, capsys):
    index = json.loads((pipeline / "model_index.json").read_text())
    (tmp_path / "unet").mkdir()
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    (tmp_path / "unet" / "config.json").write_text((pipeline / "unet" / "config.json").read_text())
    assert main(["convert", str(tmp_path), "--check"]) == 1
    assert "scheduler_config.json does not exist" in capsys.readouterr().err

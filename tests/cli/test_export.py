"""``export``: a folder that can be evaluated, or a line that says why it cannot and what to do."""

from __future__ import annotations

import json

import pytest
import yaml

from scm_media.cli import main
from scm_media.evaluation import Reference
from tests.pipeline.tiny import DESCRIPTION, write_tiny_model

DATA = {"_target_": "scm_media.data.shapes.ShapesDataset", "num": 60, "held_out": 0.5, "seed": 0, "root": None}


@pytest.fixture
def never_evaluated(tmp_path):
    """A run folder as training leaves it, with its recipe."""
    run = write_tiny_model(tmp_path / "run", run_folder=True)
    (run / "recipe.yaml").write_text(yaml.safe_dump({"modality": DESCRIPTION.modality, "data": DATA}))
    return run


def test_a_run_that_was_never_evaluated_is_exported_fit_for_evaluation(never_evaluated, tmp_path, capsys):
    target = tmp_path / "exported"
    assert main(["export", str(never_evaluated), str(target)]) == 0
    assert capsys.readouterr().err == ""
    assert Reference.load(target / "reference.safetensors").num_train == 60
    assert main(["evaluate", str(target), "-n", "8", "--rows", "1", "--batch-size", "8", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["frechet_held_out"] > 0


def test_a_model_in_one_file_is_evaluated_and_timed(never_evaluated, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "model.safetensors"
    assert main(["export", str(never_evaluated), str(file), "--format", "safetensors"]) == 0
    assert "evaluate will not work" not in capsys.readouterr().err
    figures = []
    for model in (never_evaluated, file):
        flags = ["-n", "8", "--rows", "1", "--batch-size", "8", "--json", "--device", "cpu"]
        assert main(["evaluate", str(model), *flags]) == 0
        figures.append(json.loads(capsys.readouterr().out))
    assert figures[0]["rows"][0]["frechet"] == figures[1]["rows"][0]["frechet"] > 0
    assert figures[0]["frechet_held_out"] == figures[1]["frechet_held_out"]
    before = file.read_bytes()
    assert main(["evaluate", str(file), "-n", "8", "--search-times", "--batch-size", "8", "--device", "cpu"]) == 0
    assert "not kept: a bundled or downloaded model, or a file, is not written to" in capsys.readouterr().err
    assert file.read_bytes() == before


def test_a_run_whose_data_are_gone_is_exported_and_says_what_it_lacks(never_evaluated, tmp_path, capsys):
    gone = {"_target_": "scm_media.data.folder.FolderDataset", "root": str(tmp_path / "gone")}
    (never_evaluated / "recipe.yaml").write_text(yaml.safe_dump({"modality": DESCRIPTION.modality, "data": gone}))
    target = tmp_path / "exported"
    assert main(["export", str(never_evaluated), str(target)]) == 0
    said = capsys.readouterr()
    assert said.err.startswith(f"scm-media export: evaluate will not work on {target}: its reference statistics cannot")
    assert f"{tmp_path / 'gone'} is no folder" in said.err
    assert said.err.count("\n") == 1
    assert main(["evaluate", str(target), "-n", "8"]) == 1
    assert "export it again from its run folder" in capsys.readouterr().err


def test_a_run_without_a_feature_network_says_which_stage_is_missing(never_evaluated, tmp_path, capsys):
    (never_evaluated / "feature_extractor" / "weights.safetensors").unlink()
    assert main(["export", str(never_evaluated), str(tmp_path / "exported")]) == 0
    assert "train stage=feature_extractor first" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--format", "diffusers", "--no-teacher", "--overwrite"],
            "--no-teacher, --overwrite: not with --format diffusers",
        ),
        (["--format", "lora", "--precision", "float16"], "--precision: not with --format lora"),
        (["--pipeline", "x"], "--pipeline goes with --format diffusers"),
        (["--format", "onnx", "--no-teacher"], "--no-teacher: not with --format onnx"),
    ],
)
def test_flags_that_a_format_does_not_heed_are_refused(flags, message, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["export", "image/fashion", str(tmp_path / "x"), *flags])
    assert message in capsys.readouterr().err

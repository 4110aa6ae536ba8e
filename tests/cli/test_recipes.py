"""``recipes``: the list, one recipe's text, a copy that trains, and a proposal for a folder."""

from __future__ import annotations

import re

import pytest
import torch

from scm_media import recipe
from scm_media.build import build
from scm_media.cli import main


def test_list_says_modality_parameters_memory_and_data(capsys):
    assert main(["recipes"]) == 0
    listed = {block.split("\n")[0]: block for block in capsys.readouterr().out.split("\n\n")}
    assert {"image/tiny", "image/fashion"} <= set(listed)
    for block in listed.values():
        assert "data:" in block
    config = recipe.compose("image/tiny")
    backbone = build(config["backbone"], in_channels=1, labels={})
    million = sum(parameter.numel() for parameter in backbone.parameters()) / 1e6
    assert f"modality image, sample 1×16×16, {million:.2f} M parameters" in listed["image/tiny"]
    gigabytes = {
        name: float(re.search(r"about ([\d.]+) GiB", listed[name])[1]) for name in ("image/tiny", "image/fashion")
    }
    assert gigabytes["image/tiny"] < 0.1 < gigabytes["image/fashion"]
    assert torch.zeros(1).device.type == "cpu", "the mode without storage is left again"


def test_copy_composes_to_the_same_recipe_under_its_own_name(tmp_path, capsys):
    copy = tmp_path / "mine.yaml"
    assert main(["recipes", "image/tiny", "--copy", str(copy)]) == 0
    mine, shipped = recipe.compose(str(copy)), recipe.compose("image/tiny")
    assert mine["recipe"] == "mine"
    assert {**mine, "recipe": "", "run_dir": ""} == {**shipped, "recipe": "", "run_dir": ""}
    assert main(["recipes", "image/tiny", "--copy", str(copy)]) == 1
    assert "exists; choose another file" in capsys.readouterr().err


def test_unknown_recipe(capsys):
    assert main(["recipes", "image/tny"]) == 1
    assert "nearest: image/tiny" in capsys.readouterr().err


def test_proposal_for_a_folder_composes(tmp_path, capsys):
    for name in ("cats", "dogs"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        (tmp_path / "pictures" / name / "1.png").write_bytes(b"")
    assert main(["recipes", "--for", str(tmp_path / "pictures")]) == 0
    (tmp_path / "mine.yaml").write_text(capsys.readouterr().out)
    config = recipe.compose(str(tmp_path / "mine.yaml"))
    assert config["data"]["root"] == str(tmp_path / "pictures")
    assert config["data"]["labels"] == "subfolder"


@pytest.mark.parametrize(("content", "expected"), [(["a.xyz"], "(1 .xyz)"), ([], "(none)")])
def test_no_proposal_for_files_that_nothing_reads(tmp_path, capsys, content, expected):
    for name in content:
        (tmp_path / name).write_bytes(b"")
    assert main(["recipes", "--for", str(tmp_path)]) == 1
    assert expected in capsys.readouterr().err

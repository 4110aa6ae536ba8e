"""Tests ``recipes``: the list, one recipe's text and cost, and a copy that trains."""

from __future__ import annotations

import re
import sys

import pytest
import torch
from PIL import Image

from scm_media import recipe
from scm_media.build import build
from scm_media.cli import main


def test_list_says_modality_parameters_and_data(capsys, monkeypatch):
    names = tuple(name for name in recipe.names() if name.endswith(("/tiny", "/folder")) or name == "image/fashion")
    monkeypatch.setattr(recipe, "names", lambda: names)  # others are listed in the same way
    assert main(["recipes"]) == 0
    listed = {block.split("\n")[0]: block for block in capsys.readouterr().out.split("\n\n")}
    assert set(listed) == set(names)
    for block in listed.values():
        assert "data:" in block
    config = recipe.compose("image/tiny")
    backbone = build(config["backbone"], "backbone", in_channels=1, labels={})
    million = sum(parameter.numel() for parameter in backbone.parameters()) / 1e6
    assert f"modality image, sample 1×16×16, {million:.2f} M parameters" in listed["image/tiny"]
    assert torch.zeros(1).device.type == "cpu", "the mode without storage is left again"


def test_a_recipe_is_printed_with_its_cost_and_stays_a_recipe(tmp_path, capsys):
    assert main(["recipes", "image/tiny"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(recipe.describe("image/tiny").text)
    counted = [line for line in text.splitlines() if line.startswith("# counted: ")]
    assert "modality image, sample 1×16×16, latent 1×16×16" in counted[0]
    assert re.search(r"0\.09 M parameters a network, 0\.00\d+ G multiply-adds a forward pass", counted[1])
    assert re.search(r"about 7\.\d MiB in training on each device, 32 samples a pass", counted[2])
    (tmp_path / "mine.yaml").write_text(text)
    assert recipe.compose(str(tmp_path / "mine.yaml"))["backbone"] == recipe.compose("image/tiny")["backbone"]


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


@pytest.mark.parametrize(
    ("data", "usable"),
    [("_target_: scm_media.data.shapes.ShapesDataset, num: 10", True), ("_target_: x.y, path: ???", False)],
)
def test_a_plugins_recipe_breaks_no_command(tmp_path, capsys, monkeypatch, data, usable):
    """Adds one whose data take no root, and one that cannot be composed without more."""
    (tmp_path / "site" / "odd_recipes" / "odd").mkdir(parents=True)
    (tmp_path / "site" / "odd_recipes" / "__init__.py").write_text("")
    groups = ["/base", "/modality: image", "/autoencoder: pixel", "/backbone: transformer", "_self_"]
    listed = ", ".join(f"{{{group}}}" if ":" in group else group for group in groups)
    (tmp_path / "site" / "odd_recipes" / "odd" / "one.yaml").write_text(
        f"# @package _global_\n# data: none\ndefaults: [{listed}]\nrecipe: odd/one\ndata: {{{data}}}\n"
    )
    about = tmp_path / "site" / "odd-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: odd\nVersion: 1\n")
    (about / "entry_points.txt").write_text("[scm_media.recipes]\nodd = odd_recipes\n")
    monkeypatch.syspath_prepend(tmp_path / "site")
    found = recipe.names()
    few = tuple(name for name in found if name in ("image/folder", "image/tiny", "odd/one"))
    monkeypatch.setattr(recipe, "names", lambda: few)  # to count them all takes long
    try:
        assert len(few) == 3 < len(found) and main(["recipes"]) == 0
        entry = next(block for block in capsys.readouterr().out.split("\n\n") if block.startswith("odd/one"))
        assert ("M parameters" in entry) == usable
        assert ("not usable here" in entry) != usable
        (tmp_path / "flat").mkdir()
        Image.new("L", (16, 16)).save(tmp_path / "flat" / "1.png")
        assert main(["recipes", "--for", str(tmp_path / "flat")]) == 0
        assert "after the recipe image/folder" in capsys.readouterr().out
    finally:
        sys.modules.pop("odd_recipes", None)


def test_the_cost_follows_settings_and_the_text_stays_the_recipes(capsys):
    words = ["num_devices=2", "strategy=fsdp"]
    assert main(["recipes", "image/tiny"]) == 0
    plain = capsys.readouterr().out
    assert main(["recipes", "image/tiny", *words]) == 0
    found = capsys.readouterr().out
    assert found.startswith(plain[: plain.index("# counted:")])
    assert "# counted: with num_devices=2 strategy=fsdp" in found and ", 16 samples a pass" in found
    with pytest.raises(SystemExit) as ended:
        main(["recipes", "image/tiny", "--keys", *words])
    assert ended.value.code == 2 and "KEY=VALUE goes with NAME, whose cost it changes" in capsys.readouterr().err


def test_a_recipe_that_is_required_is_asked_for_alone(capsys):
    with pytest.raises(SystemExit):
        main(["check"])
    assert capsys.readouterr().err.endswith("are required: RECIPE; scm-media recipes lists recipes\n")

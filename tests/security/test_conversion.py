"""A stranger's model of format 1: what is converted is read within its folder, and nothing is built or unpickled."""

from __future__ import annotations

import json
import os

import pytest

from scm_media.pipeline.conversion import convert
from tests.pipeline.test_conversion import METRICS, age
from tests.pipeline.tiny import write_tiny_model


@pytest.fixture
def old(tmp_path):
    return age(write_tiny_model(tmp_path / "old"))


def assert_refused(old, match):
    new = old.parent / "new"
    with pytest.raises(ValueError, match=match) as error:
        convert(old, new)
    assert "\n" not in str(error.value)
    assert [file.name for file in old.parent.iterdir() if file.name not in ("old", "elsewhere")] == []


@pytest.mark.parametrize(
    "name",
    [
        *("model.json", "recipe.yaml", "metrics.json", "metrics-other.json", "nearest.json", "samples.png"),
        *("student.safetensors", "embedder.safetensors", "reference-other.safetensors", "recorded.safetensors"),
        "evaluation/reference-other.safetensors",
    ],
)
def test_a_link_out_of_the_folder_is_refused(old, name):
    elsewhere = old.parent / "elsewhere"
    elsewhere.mkdir()
    file = old / name
    file.parent.mkdir(exist_ok=True)
    secret = elsewhere / file.name
    secret.write_bytes(file.read_bytes() if file.exists() else json.dumps(METRICS).encode())
    file.unlink(missing_ok=True)
    file.symlink_to(secret)
    assert_refused(old, "is a link out of the model's folder")


def test_a_folder_of_statistics_that_is_a_link_is_refused(old):
    elsewhere = old.parent / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "reference-other.safetensors").write_bytes((old / "student.safetensors").read_bytes())
    (old / "evaluation").symlink_to(elsewhere)
    assert_refused(old, "is a link out of the model's folder")


@pytest.mark.parametrize("key", ["modality", "flow"])
@pytest.mark.parametrize("target", ["builtins.exec", "scm_media.weights.write_whole", "torch.optim.Adam"])
def test_a_foreign_class_is_refused_and_nothing_is_written(old, key, target):
    description = json.loads((old / "model.json").read_text())
    (old / "model.json").write_text(json.dumps({**description, key: {"_target_": target}}))
    assert_refused(old, "expected|not registered|allow-list")


def test_a_pickle_is_not_read(old):
    import torch

    torch.save({"x": torch.ones(1)}, old / "student.safetensors")
    assert_refused(old, "student.safetensors")


def test_pipes_and_huge_files_are_refused(old):
    (old / "metrics.json").unlink()
    os.mkfifo(old / "metrics.json")
    assert_refused(old, "is no regular file")
    (old / "metrics.json").unlink()
    with open(old / "metrics.json", "wb") as file:
        file.truncate(1 << 33)
    assert_refused(old, "has 8589934592 bytes")


def test_a_picture_that_is_none_is_not_copied(old):
    (old / "samples.png").write_text("root:x:0:0")
    assert_refused(old, r"samples.png is no PNG picture")


def test_an_alias_bomb_in_a_recipe_is_refused(old):
    lines = ["a0: &a0 [x, x]"] + [f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}, *a{n - 1}]" for n in range(1, 40)]
    (old / "recipe.yaml").write_text("\n".join(lines))
    assert_refused(old, "stands for .* values by its aliases")

"""A stage is gone on with, or taken as done, by the recipe it was begun with and no other."""

from __future__ import annotations

import json

import pytest
import torch

from scm_media import recipe, weights
from scm_media.training import checkpoints
from scm_media.training.decisions import check_decisions, decisions, model_decisions
from tests.training.small import SMALL, state, train


def config(*overrides: str):
    return recipe.compose("image/tiny", [*SMALL, *overrides])


def begun(run_dir, stage: str, step: int) -> None:
    begun_with = decisions(config(), stage)
    checkpoints.save(run_dir / stage / "checkpoints", step, {"x": torch.zeros(1)}, 2, begun_with)


CHANGES = [
    ("student", "student.objective=sct", r"student\.objective is sct, expected scd"),
    ("student", "student.loss.label_dropout=0.2", r"student\.loss\.label_dropout is 0\.2, expected 0\.0"),
    ("teacher", "teacher.loss.label_dropout=0.2", r"teacher\.loss\.label_dropout is 0\.2, expected 0\.0"),
    ("student", "sampler.guidance_interval=[0.5,1.5]", r"sampler\.guidance_interval is \[0\.5, 1\.5\], expected None"),
    ("teacher", "seed=3", "seed is 3, expected 0"),
    ("teacher", "teacher.batch_size=16", r"teacher\.batch_size is 16, expected 8"),
    ("teacher", "trainer.accumulate=2", r"trainer\.accumulate is 2, expected 1"),
    ("teacher", "num_devices=2", "num_devices x num_nodes is 2, expected 1"),
]


@pytest.mark.parametrize(("stage", "override", "expected"), CHANGES)
def test_a_stage_is_not_gone_on_with_otherwise(tmp_path, stage, override, expected):
    begun(tmp_path, stage, 4)
    check_decisions(config(), tmp_path, stage)
    with pytest.raises(
        ValueError, match=rf"checkpoints/step-4 was trained otherwise \({expected}\): use another run_dir"
    ):
        check_decisions(config(override), tmp_path, stage)


@pytest.mark.parametrize(("stage", "override", "expected"), CHANGES)
def test_a_stage_that_is_done_must_be_the_same_model(tmp_path, stage, override, expected):
    begun(tmp_path, stage, 6)
    if "batch" in override or "accumulate" in override or "devices" in override:
        check_decisions(config(override), tmp_path, stage)
    else:
        with pytest.raises(ValueError, match=expected):
            check_decisions(config(override), tmp_path, stage)


def test_an_interval_counts_where_scales_are_an_input_and_the_samplers_own_scale_does_not():
    by_input = ("student.loss.guidance_max=2.0", "teacher.loss.label_dropout=0.1")
    assert model_decisions(config(*by_input), "student")["guidance_interval"] is None
    assert "guidance" not in model_decisions(config(*by_input), "student")


def test_weights_tell_what_they_are_without_checkpoints(tmp_path):
    file = tmp_path / "student" / "weights.safetensors"
    weights.save(file, {"x": torch.zeros(1)}, {"_target_": "x"}, {"step": 6, **model_decisions(config(), "student")})
    check_decisions(config(), tmp_path, "student")
    with pytest.raises(
        ValueError, match=r"student/weights\.safetensors was trained otherwise \(student\.objective is sct"
    ):
        check_decisions(config("student.objective=sct"), tmp_path, "student")
    weights.save(file, {"x": torch.zeros(1)}, {"_target_": "x"}, {"step": 6})
    check_decisions(config("student.objective=sct"), tmp_path, "student")


def test_a_finished_run_tells_what_its_weights_are_whatever_it_is_run_with(tmp_path):
    short = ("teacher.max_steps=1", "student.max_steps=1")
    train(tmp_path, *short)
    assert weights.read(tmp_path / "student" / "weights.safetensors").info == {
        "recipe": "image/tiny",
        "objective": "scd",
        "label_dropout": 0.0,
        "known": None,
        "guidance": 1.0,
        "guidance_interval": None,
        "guidance_max": None,
        "step": 1,
    }
    kept = checkpoints.load_decisions(tmp_path / "student" / "checkpoints")
    assert kept == (1, decisions(config(*short), "student"))
    written = {name: (tmp_path / name).read_text() for name in ("model.json", "recipe.yaml")}
    student = state(tmp_path, "student")
    for stage in ("all", "student"):
        with pytest.raises(ValueError, match=r"student\.objective is sct, expected scd"):
            train(tmp_path, *short, "student.objective=sct", f"stage={stage}")
    assert {name: (tmp_path / name).read_text() for name in written} == written
    train(tmp_path, *short, "student.objective=sct", "stage=teacher")
    assert json.loads((tmp_path / "model.json").read_text())["objective"] == "scd"
    assert all(torch.equal(student[name], value) for name, value in state(tmp_path, "student").items())

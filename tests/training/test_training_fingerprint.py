"""A stage is gone on with, or taken as done, by the recipe it was begun with and no other."""

from __future__ import annotations

import json

import pytest
import torch

from scm_media import recipe, weights
from scm_media.training import checkpoints
from scm_media.training.fingerprint import check_training_fingerprint, model_fingerprint, training_fingerprint
from tests.training.small import SMALL, state, train


def config(*overrides: str):
    return recipe.compose("image/tiny", [*SMALL, *overrides])


def begun(run_dir, stage: str, step: int) -> None:
    begun_with = training_fingerprint(config(), stage)
    checkpoints.save(run_dir / stage / "checkpoints", step, {"x": torch.zeros(1)}, 2, begun_with)


CHANGES = [
    ("student", "student.objective=sct", r"student\.objective: scd → sct"),
    ("student", "student.loss.label_dropout=0.2", r"student\.loss\.label_dropout: 0\.0 → 0\.2"),
    ("teacher", "teacher.loss.label_dropout=0.2", r"teacher\.loss\.label_dropout: 0\.0 → 0\.2"),
    ("student", "sampler.guidance_interval=[0.5,1.5]", r"sampler\.guidance_interval: None → \[0\.5, 1\.5\]"),
    ("student", "+student.backbone.dropout=0.3", r"student\.backbone\.dropout: \(absent\) → 0\.3"),
    ("teacher", "seed=3", "seed: 0 → 3"),
    ("teacher", "modality.flip=false", r"modality\.flip: True → False"),
    ("teacher", "backbone.depth=2", r"backbone\.depth: 1 → 2"),
    ("teacher", "autoencoder.network.sigma_data=0.4", r"autoencoder\.network\.sigma_data: 0\.5 → 0\.4"),
    ("teacher", "data.num=63", r"data\.num: 64 → 63"),
]
"""Overrides that change a model."""
OF_STEPS = [
    ("teacher", "teacher.batch_size=16", r"teacher\.batch_size: 8 → 16"),
    ("teacher", "trainer.gradient_clip=null", r"trainer\.gradient_clip: 1\.0 → None"),
    ("teacher", "precision=bf16-mixed", "precision: 32-true → bf16-mixed"),
    ("teacher", "teacher.optimizer.lr=0.01", r"teacher\.optimizer\.lr: 0\.002 → 0\.01"),
    ("teacher", "+teacher.optimizer.weight_decay=0.1", r"teacher\.optimizer\.weight_decay: 0 → 0\.1"),
    ("teacher", "optimizer@teacher.optimizer=radam", r"teacher\.optimizer\._target_: torch\.optim\.Adam → torch\.opt"),
    ("teacher", "teacher.loss.timesteps.std=2", r"teacher\.loss\.timesteps\.std: 1\.5 → 2"),
    ("teacher", "teacher.ema_std=0.1", r"teacher\.ema_std: 0\.05 → 0\.1"),
    ("teacher", "init_from=runs/other", "init_from: None → runs/other"),
]
"""Overrides that change the steps to it alone."""
FREE = [
    "teacher.max_steps=9",
    "device=auto",
    "strategy=ddp",
    "num_devices=2",
    "trainer.accumulate=2",
    "trainer.log_every=7",
    "trainer.checkpoint_every=7",
    "trainer.sample_every=7",
    "trainer.keep_checkpoints=1",
    "trainer.num_workers=2",
    "trainer.snapshot_every=0",
    "logger=tensorboard",
    "latents.dtype=float32",
    "sampler.steps=4",
    "student.loss.label_dropout=0.3",
    "+teacher.optimizer.weight_decay=0",
    "+backbone.num_cond_channels=0",
]


@pytest.mark.parametrize(("stage", "override", "expected"), CHANGES + OF_STEPS)
def test_a_stage_is_not_gone_on_with_otherwise(tmp_path, stage, override, expected):
    begun(tmp_path, stage, 4)
    assert check_training_fingerprint(config(), tmp_path, stage)
    with pytest.raises(
        ValueError,
        match=rf"checkpoints/step-4 was trained otherwise \({expected}.*set these keys back, or use another run_dir",
    ):
        check_training_fingerprint(config(override), tmp_path, stage)


@pytest.mark.parametrize("override", FREE)
def test_what_steps_do_not_follow_from_may_change(tmp_path, override):
    begun(tmp_path, "teacher", 4)
    assert check_training_fingerprint(config(override), tmp_path, "teacher")


@pytest.mark.parametrize(("stage", "override", "expected"), CHANGES + OF_STEPS)
def test_a_stage_that_is_done_must_be_the_same_model(tmp_path, stage, override, expected):
    begun(tmp_path, stage, 6)
    if (stage, override, expected) in OF_STEPS:
        check_training_fingerprint(config(override), tmp_path, stage)
    else:
        with pytest.raises(ValueError, match=expected):
            check_training_fingerprint(config(override), tmp_path, stage)


def test_an_old_checkpoint_is_compared_in_the_keys_that_it_has(tmp_path):
    old = {"seed": 0, "teacher.batch_size": 8, "teacher.loss.label_dropout": 0.0}
    checkpoints.save(tmp_path / "teacher" / "checkpoints", 4, {"x": torch.zeros(1)}, 2, old)
    assert not check_training_fingerprint(config("teacher.optimizer.lr=1"), tmp_path, "teacher")
    with pytest.raises(ValueError, match=r"\(teacher\.batch_size: 8 → 16\)"):
        check_training_fingerprint(config("teacher.batch_size=16"), tmp_path, "teacher")


def test_weights_that_were_not_there_before_are_not_compared(tmp_path):
    checkpoints.save(tmp_path / "student" / "checkpoints", 4, {}, 2, training_fingerprint(config(), "student"))
    assert check_training_fingerprint(config(), tmp_path, "student", {"data.fingerprint": "x", "teacher weights": "y"})
    with_teacher = {**training_fingerprint(config(), "student"), "teacher weights": "z"}
    checkpoints.save(tmp_path / "student" / "checkpoints", 5, {}, 2, with_teacher)
    with pytest.raises(ValueError, match=r"step-5 was trained otherwise \(teacher weights: z → y\)"):
        check_training_fingerprint(config(), tmp_path, "student", {"teacher weights": "y"})


def test_a_student_does_not_go_on_with_another_teacher(tmp_path):
    train(tmp_path, "student.max_steps=4")
    file = tmp_path / "teacher" / "weights.safetensors"
    component = weights.read(file)
    changed = {name: value * 1.01 if value.is_floating_point() else value for name, value in component.state.items()}
    weights.save(file, changed, component.config, component.info)
    with pytest.raises(ValueError, match=r"student/checkpoints/step-4 was trained otherwise \(teacher weights: \w+ → "):
        train(tmp_path, "student.max_steps=6", "stage=student")


def test_an_interval_counts_where_scales_are_an_input_and_the_samplers_own_scale_does_not():
    by_input = ("student.loss.guidance_max=2.0", "teacher.loss.label_dropout=0.1")
    assert model_fingerprint(config(*by_input), "student")["guidance_interval"] is None
    assert "guidance" not in model_fingerprint(config(*by_input), "student")


def test_weights_tell_what_they_are_without_checkpoints(tmp_path):
    file = tmp_path / "student" / "weights.safetensors"
    weights.save(file, {"x": torch.zeros(1)}, {"_target_": "x"}, {"step": 6, **model_fingerprint(config(), "student")})
    check_training_fingerprint(config(), tmp_path, "student")
    with pytest.raises(
        ValueError, match=r"student/weights\.safetensors was trained otherwise \(student\.objective: scd → sct"
    ):
        check_training_fingerprint(config("student.objective=sct"), tmp_path, "student")
    weights.save(file, {"x": torch.zeros(1)}, {"_target_": "x"}, {"step": 6})
    check_training_fingerprint(config("student.objective=sct"), tmp_path, "student")


def test_the_description_of_a_finished_run_follows_its_weights(tmp_path):
    short = ("teacher.max_steps=1", "student.max_steps=1")
    train(tmp_path, *short)
    assert weights.read(tmp_path / "student" / "weights.safetensors").info == {
        "recipe": "image/tiny",
        "objective": "scd",
        "label_dropout": 0.0,
        "mask": None,
        "guidance": 1.0,
        "guidance_interval": None,
        "guidance_max": None,
        "step": 1,
    }
    kept = checkpoints.load_training_fingerprint(tmp_path / "student" / "checkpoints")
    made_of = {"data.fingerprint", "autoencoder weights", "teacher weights"}
    assert kept[1].keys() - training_fingerprint(config(*short), "student").keys() == made_of
    assert {name: value for name, value in kept[1].items() if name not in made_of} == training_fingerprint(
        config(*short), "student"
    )
    written = {name: (tmp_path / name).read_text() for name in ("model.json", "recipe.yaml")}
    student = state(tmp_path, "student")
    for stage in ("all", "student"):
        with pytest.raises(ValueError, match=r"student\.objective: scd → sct"):
            train(tmp_path, *short, "student.objective=sct", f"stage={stage}")
    assert {name: (tmp_path / name).read_text() for name in written} == written
    train(tmp_path, *short, "student.objective=sct", "stage=teacher")
    assert json.loads((tmp_path / "model.json").read_text())["objective"] == "scd"
    assert all(torch.equal(student[name], value) for name, value in state(tmp_path, "student").items())

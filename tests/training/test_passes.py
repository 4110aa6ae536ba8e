"""A stage that comes back to its examples very often is warned of before it begins, with what helps."""

from __future__ import annotations

import pytest

from modalities.audio import AudioModality
from modalities.image import ImageModality
from scm_media import recipe
from scm_media.cli import check
from scm_media.training.passes import describe_passes
from tests.training.small import train

STEPS = ("teacher.batch_size=32", "student.batch_size=32")


def found(stage, num, *overrides, modality=None):
    config = recipe.compose("image/tiny", [*STEPS, *overrides])
    return describe_passes(config, stage, num, modality or ImageModality(size=16, channels=1))


def test_the_limit_is_a_number_of_passes_over_the_data():
    assert found("teacher", 32, "teacher.max_steps=200") is None
    said = found("teacher", 32, "teacher.max_steps=201")
    assert said == (
        "teacher: 201 passes over 32 training examples, more than 200: it may learn them by heart; remedies: "
        "teacher.max_steps=200, teacher.patience=5, modality.flip=true, backbone.dropout=0.1"
    )
    assert "400 passes over 320 training" in found("teacher", 320, "teacher.max_steps=4000")


def test_augmented_data_may_be_passed_more_often():
    flipped = ImageModality(size=16, channels=1, flip=True)
    assert found("teacher", 32, "teacher.max_steps=1000", modality=flipped) is None
    said = found("teacher", 32, "teacher.max_steps=1001", "backbone.dropout=0.2", modality=flipped)
    assert said.endswith("more than 1,000: it may learn them by heart; remedies: teacher.max_steps=1000, "
                         "teacher.patience=5")  # fmt: skip
    sounds = AudioModality(crop="start")
    assert "modality.crop=random, modality.gain=6, backbone" in found("teacher", 8, modality=sounds)


def test_nothing_is_said_of_a_stage_that_ends_early_or_learns_from_the_teacher():
    many = ("teacher.max_steps=100000", "student.max_steps=100000")
    assert found("teacher", 32, *many, "teacher.patience=4") is None
    assert found("student", 32, *many) is None
    assert "student: 100,000 passes" in found("student", 32, *many, "student.objective=sct")
    assert found("autoencoder", 32, *many) is None, "it is not trained"
    assert found("guide", 32, *many) is None, "there is none"


@pytest.mark.parametrize("stage", ["teacher", "feature_extractor"])
def test_the_remedies_are_overrides_that_the_recipe_takes(stage):
    said = found(stage, 32, f"{stage}.max_steps=100000")
    remedies = said.partition("remedies: ")[2].split(", ")
    config = recipe.compose("image/tiny", [*STEPS, *remedies])
    assert config[stage]["patience"] == 5
    assert describe_passes(config, stage, 32, ImageModality(size=16, channels=1, flip=True)) is None


def test_trajectories_are_learned_by_heart_sooner():
    few = ("+trajectories.num=1024", "+warm_start={batch_size: 62, max_steps: 192, patience: null}")
    assert found("warm_start", 10, *few) is None  # 192 x 62 / 992 = 12
    said = found("warm_start", 10, *few, "warm_start.max_steps=193")
    assert "warm_start: 12 passes over 992 trajectories, more than 12" in said
    assert "warm_start.max_steps=192, warm_start.patience=5, more trajectories.num, backbone.dropout=0.1" in said


def test_train_warns_once_before_a_stage_that_has_steps_to_make(tmp_path, capsys):
    few = ("data.num=8", "teacher.max_steps=8", "student.max_steps=0", "modality.flip=false", "backbone.dropout=0.0")
    many = (*few, "teacher.batch_size=256", "data.num=8")
    train(tmp_path, *many)
    said = capsys.readouterr().err
    assert said.count("warning: teacher: 256 passes over 8 training examples") == 1
    train(tmp_path, *many)
    assert "passes over" not in capsys.readouterr().err


@pytest.mark.parametrize(("steps", "said"), [("7", False), ("100000", True)])
def test_check_warns_too(tmp_path, capsys, steps, said):
    check.run(["image/tiny", "data.num=64", f"run_dir={tmp_path}", f"teacher.max_steps={steps}"])
    assert ("warning: teacher: 50,000 passes over 64" in capsys.readouterr().out) is said

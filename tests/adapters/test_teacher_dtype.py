"""Teachers of diffusers that are held in bfloat16 while students learn from them."""

from __future__ import annotations

import pytest
import torch

from scm_media import recipe, training, weights
from scm_media.training.context import prepare
from scm_media.training.fingerprint import training_fingerprint
from scm_media.training.stages.student import student_task
from tests.adapters.pipelines import save_pipeline
from tests.training.small import DISTIL, SMALL

pytest.importorskip("diffusers")
SETTINGS = (
    *DISTIL,
    "trainer.teacher_dtype=bfloat16",
    *(f"{stage}.{key}" for stage in ("warm_start", "student") for key in ("max_steps=2", "batch_size=2")),
)


def dtypes(network):
    return {each.dtype for each in network.parameters()}


@pytest.mark.parametrize("lora", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_teacher_is_narrow_and_what_is_trained_is_wide(lora, tmp_path):
    folder = save_pipeline("image", tmp_path / "pipeline")
    more = ["student.lora={rank: 2}"] if lora else []
    config = recipe.compose("image/distil", [*SETTINGS, f"teacher_from={folder}", f"run_dir={tmp_path / 'run'}", *more])
    training.run(config)
    loss = student_task(prepare(config)).loss
    teacher = loss.backbone.base if lora else loss.teacher
    assert torch.bfloat16 in dtypes(teacher) and (lora or dtypes(teacher) == {torch.bfloat16})
    assert dtypes(loss.backbone) == dtypes(loss.auxiliary) == {torch.float32}
    kept = weights.read(tmp_path / "run" / "student" / "weights.safetensors").state
    assert {each.dtype for each in kept.values()} == {torch.float32}
    whole = weights.read(tmp_path / "run" / "teacher" / "weights.safetensors").state
    assert {each.dtype for each in whole.values()} == {torch.float32}, "the teacher's file stays as it was"
    assert training_fingerprint(config, "student")["trainer.teacher_dtype"] == "bfloat16"


def test_a_teacher_of_ours_stays_wide(tmp_path):
    run = tmp_path / "teacher"
    training.run(recipe.compose("image/tiny", [*SMALL, "student.max_steps=0", f"run_dir={run}"]))
    overrides = [*SETTINGS, "data.classes={class:4}", f"teacher_from={run}", f"run_dir={tmp_path / 'run'}"]
    with pytest.raises(ValueError, match=r"trainer\.teacher_dtype bfloat16 needs a teacher of diffusers, got"):
        training.run(recipe.compose("image/distil", overrides))

"""Students that predict noise start from less noise than their teacher: in training, in sampling and in diffusers."""

from __future__ import annotations

import math

import pytest
import torch

from scm_media import TrigFlow, recipe, sample_consistency
from scm_media.adapters.few_steps import few_step_scheduler, few_step_times
from scm_media.pipeline.description import SamplerSettings
from scm_media.pipeline.sampling import choose_edit_sampler, choose_student_sampler, choose_teacher_sampler
from scm_media.training.fingerprint import training_fingerprint
from tests.adapters.pipelines import save_pipeline
from tests.adapters.small import KINDS
from tests.adapters.test_few_steps import converted, sample_theirs
from tests.training.small import DISTIL

pytest.importorskip("diffusers")


def compose(folder, *overrides):
    return recipe.compose("image/distil", [*DISTIL, f"teacher_from={folder}", *overrides])


def test_a_teacher_of_noise_gives_its_student_a_first_noise_level(tmp_path):
    noise, flow = save_pipeline("image", tmp_path / "noise"), tmp_path / "flow"
    assert compose(noise)["sampler"]["first_sigma"] == 12
    assert compose(noise, "sampler.first_sigma=5")["sampler"]["first_sigma"] == 5
    save_pipeline("video", flow)
    video = [f"teacher_from={flow}", "data.prompts=prompts.safetensors", *DISTIL]
    assert recipe.compose("video/distil", video)["sampler"]["first_sigma"] is None


def test_stages_of_students_do_not_go_on_from_another_level(tmp_path):
    folder = save_pipeline("image", tmp_path / "pipeline")
    for stage in ("warm_start", "student"):
        assert training_fingerprint(compose(folder), stage)["sampler.first_sigma"] == 12
    assert "sampler.first_sigma" not in training_fingerprint(compose(folder), "teacher")


def test_the_student_alone_is_sampled_from_there():
    settings, flow = SamplerSettings(first_sigma=5.0), TrigFlow(0.5)
    for made in (choose_student_sampler(settings, flow, 2), choose_edit_sampler(settings, flow, None, None, False)):
        assert made.keywords["times"][0] == pytest.approx(math.atan(5 / 0.5))
    assert choose_teacher_sampler(settings, flow).keywords["times"][0] == pytest.approx(math.atan(80 / 0.5))


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_the_scheduler_of_diffusers_has_no_timesteps_above_it(steps, monkeypatch):
    name = "UNet2DModel"
    backbone, cond = converted(name)
    scheduler = few_step_scheduler(backbone, KINDS[name][1], 5.0)
    times = few_step_times(backbone, scheduler, steps)
    assert 4.9 < math.tan(times[0]) <= 5  # the highest level that there is below
    assert scheduler.config.num_train_timesteps < 1000
    noises = [torch.randn(2, *KINDS[name][2], dtype=torch.float64) for _ in range(steps + 1)]
    theirs = sample_theirs(backbone, scheduler, steps, noises, cond, monkeypatch)[-1]
    ours = sample_consistency(backbone, TrigFlow(1.0), lambda i: noises[i], times, cond)
    assert (ours - theirs).abs().max() < 1e-5 * theirs.abs().max()

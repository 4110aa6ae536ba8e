"""Students that predict noise start from less noise than their teacher: in training, in sampling and in diffusers."""

from __future__ import annotations

import math

import pytest
import torch

from scm_media import TrigFlow, recipe, sample_consistency, training, weights
from scm_media.adapters.few_steps import few_step_scheduler, few_step_times
from scm_media.cli import main
from scm_media.pipeline import ModelFolder
from scm_media.pipeline.description import SamplerSettings
from scm_media.pipeline.sampling import choose_edit_sampler, choose_student_sampler, choose_teacher_sampler
from scm_media.settings.sampling import first_sigma
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
    assert compose(noise)["sampler"]["first_sigma"] == 5
    assert compose(noise, "sampler.first_sigma=5")["sampler"]["first_sigma"] == 5
    save_pipeline("video", flow)
    video = [f"teacher_from={flow}", "data.prompts=prompts.safetensors", *DISTIL]
    assert recipe.compose("video/distil", video)["sampler"]["first_sigma"] is None


def test_a_level_that_is_not_below_the_teachers_is_none(tmp_path):
    folder = save_pipeline("image", tmp_path / "pipeline")
    for overrides in (["sampler.first_sigma=80"], ["sampler.sigma_max=5"]):
        config = compose(folder, *overrides)
        assert first_sigma(config["sampler"]) is None
        assert "sampler.first_sigma" not in training_fingerprint(config, "student")
        student_task_times = choose_student_sampler(SamplerSettings.from_mapping(config["sampler"]), TrigFlow(1.0), 1)
        assert student_task_times.keywords["times"] == (math.atan(config["sampler"]["sigma_max"]),)


def test_a_converted_teacher_of_noise_gives_it_too(tmp_path):
    folder, converted = save_pipeline("image", tmp_path / "pipeline"), tmp_path / "converted"
    assert main(["convert", str(folder), str(converted)]) == 0
    assert compose(converted)["sampler"]["first_sigma"] == 5


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["sampler.first_sigma=1.5"],
            r"sampler.second_time 1.1 must lie below 0.9828, the time of the noise level 1.5",
        ),
        (["sampler.first_sigma=0.3"], r"sampler.second_time 1.1 and student.loss.later_times 0.4 must lie below 0.29"),
    ],
)
def test_levels_that_leave_no_room_are_refused_before_anything_is_written(tmp_path, overrides, message):
    folder = save_pipeline("image", tmp_path / "pipeline")
    with pytest.raises(ValueError, match=message):
        training.run(compose(folder, f"run_dir={tmp_path / 'run'}", *overrides))
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_finished_student_keeps_the_level_that_it_was_trained_with(tmp_path):
    folder, run = save_pipeline("image", tmp_path / "pipeline"), tmp_path / "run"
    lengths = [f"{stage}.{key}" for stage in ("warm_start", "student") for key in ("max_steps=2", "batch_size=2")]
    training.run(compose(folder, f"run_dir={run}", *lengths))
    assert weights.read_info(run / "student" / "weights.safetensors")["first_sigma"] == 5
    training.run(compose(folder, f"run_dir={run}", *lengths, "sampler.first_sigma=80"))
    assert ModelFolder.open(run).description.sampler.first_sigma == 5
    with pytest.raises(ValueError, match=r"sampler.first_sigma: 5.0 → 20"):
        training.run(compose(folder, f"run_dir={run}", *lengths, "sampler.first_sigma=20"))


@pytest.mark.parametrize("name", ["SD3Transformer2DModel", "StableAudioDiTModel"])
def test_schedulers_that_start_from_more_noise_are_refused(name):
    with pytest.raises(ValueError, match=r"starts from the noise level 5 \(sampler.first_sigma\)"):
        few_step_scheduler(converted(name)[0], KINDS[name][1], 5.0)


def test_stages_of_students_do_not_go_on_from_another_level(tmp_path):
    folder = save_pipeline("image", tmp_path / "pipeline")
    for stage in ("warm_start", "student"):
        assert training_fingerprint(compose(folder), stage)["sampler.first_sigma"] == 5
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

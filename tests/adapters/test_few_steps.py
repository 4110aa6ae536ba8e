"""Schedulers of diffusers and our sampler make the same samples in few steps."""

from __future__ import annotations

import math

import pytest
import torch

from scm_media import TrigFlow, sample_consistency
from scm_media.adapters import ADAPTERS, change_of_variables
from scm_media.adapters.few_steps import few_step_scheduler, few_step_times, set_steps
from tests.adapters.small import KINDS, conditioning, needs, network

pytest.importorskip("diffusers")
NOISED_AGAIN = [name for name in KINDS if name != "StableAudioDiTModel"]


def converted(name, scheduler=None):
    """A small network of a class in float64, its backbone, and conditioning for two samples."""
    backbone = change_of_variables(network(name).double(), scheduler or KINDS[name][1]).eval()
    cond = conditioning(needs(name))._map(lambda each: each.double() if each.is_floating_point() else each)
    return backbone, cond


def sample_theirs(backbone, scheduler, steps, noises, cond, monkeypatch):
    """Samples by the scheduler's own steps, which are given the noises in order."""
    left = iter(noises[1:])
    module = type(scheduler).__module__
    monkeypatch.setattr(f"{module}.randn_tensor", lambda *_, **__: next(left), raising=False)
    set_steps(backbone, scheduler, steps)
    scheduler.noise_sampler = lambda *_: next(left)
    y, seen = noises[0] * float(scheduler.init_noise_sigma if hasattr(scheduler, "init_noise_sigma") else 1), []
    name = type(backbone.network).__name__
    for time in scheduler.timesteps:
        scaled = scheduler.scale_model_input(y, time) if hasattr(scheduler, "scale_model_input") else y
        unit = backbone.time_scale / 1000 if hasattr(backbone, "time_scale") else 1
        at = (time.double() * unit).expand(len(y))
        with torch.no_grad():
            prediction = ADAPTERS[name].called(backbone.network, scaled, at, cond)
        y = scheduler.step(prediction, time, y, return_dict=False)[0]
        seen.append(y)
    return seen


@pytest.mark.parametrize("steps", [1, 2, 4])
@pytest.mark.parametrize("name", NOISED_AGAIN)
def test_samples_are_the_same(name, steps, monkeypatch):
    backbone, cond = converted(name)
    scheduler = few_step_scheduler(backbone, KINDS[name][1])
    times = few_step_times(backbone, scheduler, steps)
    assert len(times) == steps and times[0] > 1.5
    noises = [torch.randn(2, *KINDS[name][2], dtype=torch.float64) for _ in range(steps + 1)]
    theirs = sample_theirs(backbone, scheduler, steps, noises, cond, monkeypatch)[-1]
    flow = TrigFlow(backbone.sigma_data)
    ours = sample_consistency(backbone, flow, lambda i: noises[i] * backbone.sigma_data, times, cond)
    assert (ours - theirs).abs().max() < 1e-5 * theirs.abs().max()


def test_two_steps_of_a_flow_meet_in_the_middle_and_those_of_timesteps_too():
    flow, vp = converted("WanTransformer3DModel")[0], converted("UNet2DModel")[0]
    times = few_step_times(flow, few_step_scheduler(flow, KINDS["WanTransformer3DModel"][1]), 2)
    assert times == pytest.approx((math.pi / 2, math.pi / 4), abs=1e-4)
    for name in ("FluxTransformer2DModel", "SD3Transformer2DModel"):
        backbone = converted(name)[0]
        times = few_step_times(backbone, few_step_scheduler(backbone, KINDS[name][1]), 2)
        assert times == pytest.approx((math.pi / 2, math.pi / 4), abs=1e-4)
    scheduler = few_step_scheduler(vp, KINDS["UNet2DModel"][1])
    few_step_times(vp, scheduler, 2)
    assert scheduler.timesteps.tolist() == [999, 499]


def test_stable_audios_scheduler_noises_again_as_we_do(monkeypatch):
    name = "StableAudioDiTModel"
    backbone, cond = converted(name)
    scheduler = few_step_scheduler(backbone, KINDS[name][1])
    times = few_step_times(backbone, scheduler, 2)
    noises = [torch.randn(2, *KINDS[name][2], dtype=torch.float64) for _ in range(3)]
    middle, theirs = sample_theirs(backbone, scheduler, 2, noises, cond, monkeypatch)
    flow = TrigFlow(backbone.sigma_data)
    x0 = sample_consistency(backbone, flow, lambda i: noises[i], times[:1], cond)
    # A part of the first noise, (1 / 500)² of it, is kept; the rest of the level is filled by the new one.
    assert (middle - (x0 + noises[1])).abs().max() < 0.01
    ours = sample_consistency(backbone, flow, lambda i: [noises[0], middle - x0][i], times, cond)
    assert (ours - theirs).abs().max() < 1e-4 * theirs.abs().max()


def test_numbers_of_steps_that_a_scheduler_cannot_sample_are_refused():
    scheduler = {"_class_name": "EDMEulerScheduler"}
    backbone = converted("UNet2DModel", scheduler)[0]
    own = few_step_scheduler(backbone, scheduler)
    assert few_step_times(backbone, own, 1) == pytest.approx((math.atan2(80, 0.5),))
    with pytest.raises(ValueError, match="EDMEulerScheduler samples this network in one step alone, not in 2"):
        few_step_times(backbone, own, 2)
    name = "StableAudioDiTModel"
    audio = converted(name)[0]
    with pytest.raises(ValueError, match="in two steps or more, not in 1"):
        few_step_times(audio, few_step_scheduler(audio, KINDS[name][1]), 1)

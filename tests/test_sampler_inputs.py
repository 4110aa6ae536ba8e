"""Samplers have defaults for noise, times, flow and conditioning, and leave a model as it was."""

from __future__ import annotations

import math
import warnings

import pytest
import torch
from torch import nn

from scm_media.conditioning import Conditioning
from scm_media.samplers import (
    consistency_times,
    sample_consistency,
    sample_dpm_solver,
    sample_heun,
    teacher_times,
)
from scm_media.trigflow import TrigFlow

SHAPE = (4, 2, 5)
FLOW = TrigFlow(0.5)
SAMPLERS = [sample_consistency, sample_heun, sample_dpm_solver]


class Network(nn.Module):
    """F = u/2 + cos t, plus the label, with dropout and a parameter."""

    def __init__(self, dtype=torch.float32):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.5, dtype=dtype))
        self.dropout = nn.Dropout(0.5)
        self.types = set()

    def forward(self, u, t, cond):
        self.types.add((u.dtype, t.dtype))
        label = 0.0 if cond.label is None else cond.label.to(u)[:, None, None]
        return self.dropout(self.scale * u + torch.cos(t).to(u)[:, None, None] + label)


@pytest.fixture
def network():
    return Network().eval()


def noise_from(seed):
    generator = torch.Generator().manual_seed(seed)
    drawn = []

    def noise(i):
        while len(drawn) <= i:
            drawn.append(FLOW.prior(SHAPE, generator))
        return drawn[i]

    return noise


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_shape_and_a_seed_stand_for_noise(sampler, network):
    times = consistency_times(3, FLOW) if sampler is sample_consistency else teacher_times(6, FLOW)
    explicit = sampler(network, FLOW, noise_from(7), times, Conditioning())
    steps = len(times) if sampler is sample_consistency else len(times) - 1
    assert torch.equal(sampler(network, shape=SHAPE, steps=steps, seed=7), explicit)
    assert torch.equal(sampler(network, shape=SHAPE, times=times, seed=torch.Generator().manual_seed(7)), explicit)
    assert not torch.equal(sampler(network, shape=SHAPE, times=times, seed=8), explicit)
    torch.manual_seed(7)
    assert torch.equal(sampler(network, shape=SHAPE, times=times), explicit)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_tensor_of_noise_starts_the_trajectory(sampler, network):
    noise = noise_from(7)
    times = (1.4,) if sampler is sample_consistency else (1.4, 0.7, 0.0)
    expected = sampler(network, FLOW, noise, times, Conditioning())
    assert torch.equal(sampler(network, noise=noise(0), times=times), expected)


def test_renoising_after_a_tensor_of_noise_follows_the_seed(network):
    start = noise_from(7)(0)
    first, again, other = (sample_consistency(network, noise=start, steps=2, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_numbers_of_steps_have_defaults(network):
    for sampler, times in [
        (sample_consistency, consistency_times(2, FLOW)),
        (sample_heun, teacher_times(32, FLOW)),
        (sample_dpm_solver, teacher_times(32, FLOW)),
    ]:
        default = sampler(network, shape=SHAPE, seed=0)
        assert torch.equal(default, sampler(network, shape=SHAPE, seed=0, times=times))


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "either noise .* or the shape"),
        ({"noise": torch.zeros(SHAPE), "shape": SHAPE}, "either noise .* or the shape"),
        ({"noise": torch.zeros, "shape": SHAPE}, "leave shape= and seed= out"),
        ({"noise": torch.zeros, "seed": 0}, "leave shape= and seed= out"),
        ({"shape": SHAPE, "steps": 2, "times": (1.5, 1.0)}, "steps or times, not both; got steps=2 and 2 times"),
        ({"shape": SHAPE, "steps": 0}, "steps must be at least 1, got 0"),
    ],
)
def test_arguments_that_contradict_are_refused(sampler, arguments, message, network):
    with pytest.raises(ValueError, match=message):
        sampler(network, **arguments)


def test_noise_of_another_size_is_pointed_out(network):
    noise = torch.randn(8, 2, 100)
    with pytest.warns(
        UserWarning, match=r"standard deviation of 1\.0\d, and sigma_data is 0\.5.*TrigFlow\.prior"
    ) as told:
        sample_heun(network, noise=noise, steps=2)
    assert told[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sample_heun(network, noise=0.5 * noise, steps=2)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_flow_is_the_models(sampler, network):
    network.sigma_data = 2.0
    explicit = sampler(network, TrigFlow(2.0), shape=SHAPE, seed=0)
    assert torch.equal(sampler(network, shape=SHAPE, seed=0), explicit)
    assert not torch.equal(sampler(network, FLOW, shape=SHAPE, seed=0), explicit)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize(
    ("dtype", "called", "latents"),
    [
        (torch.float32, (torch.float32, torch.float32), torch.float32),
        (torch.float64, (torch.float64, torch.float64), torch.float64),
        (torch.bfloat16, (torch.bfloat16, torch.float32), torch.float32),
    ],
)
def test_types_are_those_of_the_models_parameters(sampler, dtype, called, latents):
    network = Network(dtype).eval()
    x0 = sampler(network, shape=SHAPE, steps=2, seed=0)
    assert network.types == {called}
    assert x0.dtype == latents
    wide = sampler(Network(torch.float64).eval(), noise=FLOW.prior(SHAPE), steps=2, seed=0)
    assert wide.dtype == torch.float32


def test_the_device_is_that_of_the_models_parameters():
    network = Network().to("meta").eval()
    label = torch.tensor([0, 1, 2, 3])
    assert sample_heun(network, shape=SHAPE, steps=2, cond=label).device.type == "meta"
    assert sample_heun(network, noise=torch.zeros(SHAPE), steps=2, cond=label).device.type == "meta"


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_model_samples_in_evaluation_mode_and_keeps_its_own(sampler, network):
    expected = sampler(network, shape=SHAPE, seed=0)
    network.train()
    network.frozen = nn.Dropout(0.1).eval()
    assert torch.equal(sampler(network, shape=SHAPE, seed=0), expected)
    assert network.training and network.dropout.training and not network.frozen.training
    with pytest.raises(ValueError, match="descend"):
        sampler(network, shape=SHAPE, times=(0.5, 1.0))
    assert network.training


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_plain_label_is_conditioning(sampler, network):
    label = torch.tensor([0, 1, 2, 3])
    explicit = sampler(network, shape=SHAPE, seed=0, cond=Conditioning(labels={"class": label}))
    assert torch.equal(sampler(network, shape=SHAPE, seed=0, cond=label), explicit)
    assert torch.equal(sampler(network, shape=SHAPE, seed=0, cond={"kind": label}), explicit)
    assert not torch.equal(sampler(network, shape=SHAPE, seed=0), explicit)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_callback_sees_every_step(sampler, network):
    times = (1.5, 1.0, 0.5) if sampler is sample_consistency else (1.5, 1.0, 0.5, 0.0)
    seen = []
    x0 = sampler(network, shape=SHAPE, times=times, seed=0, callback=lambda *step: seen.append(step))
    assert [(i, time) for i, time, _ in seen] == [(0, 1.5), (1, 1.0), (2, 0.5)]
    assert torch.equal(seen[-1][2], x0) or torch.allclose(seen[-1][2], x0, atol=1e-6)
    z = FLOW.prior(SHAPE, torch.Generator().manual_seed(0))
    t = torch.full((4,), 1.5)
    torch.testing.assert_close(seen[0][2], FLOW.denoise(z, network(z / 0.5, t, Conditioning()), t))
    assert torch.equal(sampler(network, shape=SHAPE, times=times, seed=0), x0)


def test_a_start_needs_no_shape(network):
    start = torch.randn(SHAPE)
    explicit = sample_consistency(network, shape=SHAPE, times=(0.6,), seed=0, start=start)
    assert torch.equal(sample_consistency(network, times=(0.6,), seed=0, start=start), explicit)
    t = torch.full((4,), 0.6)
    x_t = FLOW.interpolate(start, FLOW.prior(SHAPE, torch.Generator().manual_seed(0)), t)
    torch.testing.assert_close(explicit, FLOW.denoise(x_t, network(x_t / 0.5, t, Conditioning()), t))


def test_the_prior_is_drawn_on_the_cpu_and_moved():
    z = FLOW.prior(SHAPE, torch.Generator().manual_seed(0), dtype=torch.float64)
    assert z.dtype == torch.float64
    assert FLOW.prior(SHAPE, device="meta").device.type == "meta"
    assert math.isclose(FLOW.prior((10_000,)).std().item(), 0.5, rel_tol=0.05)


@pytest.mark.parametrize(("sampler", "last"), [(sample_consistency, 1.1), (sample_heun, 0.1)])
def test_default_times_stay_within_the_noise_levels_that_the_network_knows(sampler, last):
    network, seen = Network(), []
    network.time_range = (0.1, 1.2)
    sampler(network, shape=SHAPE, steps=2, seed=0, callback=lambda i, time, x0: seen.append(time))
    assert seen == pytest.approx([1.2, last])
    network.time_range = (0.0, math.pi / 2)
    sampler(network, shape=SHAPE, steps=2, seed=0, callback=lambda i, time, x0: seen.append(time))
    assert seen[2] == pytest.approx(math.atan(160)), "sigma 80 where the network knows more"

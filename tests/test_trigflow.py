from __future__ import annotations

import math

import pytest
import torch

from scm_media.conditioning import Conditioning
from scm_media.trigflow import TrigFlow, broadcast_time
from tests.oracles import SHAPES, Gaussian, Mixture

NOTHING = Conditioning()
TIMES = torch.tensor([0.02, 0.4, 0.9, 1.3, 1.56], dtype=torch.float64)


def pairs(shape, num=5, seed=1):
    generator = torch.Generator().manual_seed(seed)
    oracle = Gaussian.random(shape)
    x0 = oracle.sample(num, generator)
    return oracle, x0, 0.5 * torch.randn(x0.shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("shape", SHAPES)
def test_path_ends_at_data_and_at_noise(shape):
    oracle, x0, z = pairs(shape)
    torch.testing.assert_close(oracle.flow.interpolate(x0, z, torch.zeros(5)), x0)
    torch.testing.assert_close(oracle.flow.interpolate(x0, z, torch.full((5,), math.pi / 2, dtype=torch.float64)), z)


@pytest.mark.parametrize("shape", SHAPES)
def test_velocity_is_the_derivative_of_the_path(shape):
    oracle, x0, z = pairs(shape)
    _, velocity = torch.func.jvp(lambda t: oracle.flow.interpolate(x0, z, t), (TIMES,), (torch.ones_like(TIMES),))
    torch.testing.assert_close(oracle.flow.velocity(x0, z, TIMES), velocity, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_denoising_with_the_true_velocity_gives_the_data_back(shape):
    oracle, x0, z = pairs(shape)
    F = oracle.flow.velocity(x0, z, TIMES) / oracle.flow.sigma_data
    denoised = oracle.flow.denoise(oracle.flow.interpolate(x0, z, TIMES), F, TIMES)
    torch.testing.assert_close(denoised, x0, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", ["gaussian", "mixture"])
def test_the_exact_F_is_the_mean_velocity_and_follows_the_trajectory(kind, shape):
    oracle = Gaussian.random(shape) if kind == "gaussian" else Mixture(shape)
    generator = torch.Generator().manual_seed(2)
    x0 = oracle.sample(5, generator)
    x_t = oracle.flow.interpolate(x0, 0.5 * torch.randn(x0.shape, generator=generator, dtype=torch.float64), TIMES)
    h = 1e-4
    forward, backward = (oracle.trajectory(x_t, TIMES, TIMES + step) for step in (h, -h))
    F = oracle(x_t / 0.5, TIMES, NOTHING)
    torch.testing.assert_close((forward - backward) / (2 * h) / 0.5, F, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_exact_F_minimises_the_regression_onto_velocities(shape):
    oracle = Gaussian.random(shape)
    generator = torch.Generator().manual_seed(3)
    x0 = oracle.sample(40_000, generator)
    z = 0.5 * torch.randn(x0.shape, generator=generator, dtype=torch.float64)
    t = torch.full((40_000,), 0.8, dtype=torch.float64)
    residual = oracle.flow.velocity(x0, z, t) / 0.5 - oracle(oracle.flow.interpolate(x0, z, t) / 0.5, t, NOTHING)
    x_t = oracle.flow.interpolate(x0, z, t)
    assert residual.mean(0).abs().max() < 0.03
    assert (residual * (x_t - x_t.mean(0))).mean(0).abs().max() < 0.03


def test_broadcast_time_puts_the_batch_first():
    assert broadcast_time(torch.arange(3.0), torch.zeros(3, 1, 4, 5)).shape == (3, 1, 1, 1)


def test_prior_has_the_deviation_of_the_data_and_follows_its_generator():
    flow = TrigFlow(0.7)
    draws = [flow.prior((4, 1000), torch.Generator().manual_seed(0)) for _ in range(2)]
    assert torch.equal(*draws)
    assert draws[0].std().item() == pytest.approx(0.7, rel=0.03)


def test_sigma_and_time_are_inverse():
    flow = TrigFlow(0.5)
    assert flow.time_from_sigma(80.0) == pytest.approx(math.atan(160.0))
    assert flow.sigma_from_time(flow.time_from_sigma(0.3)) == pytest.approx(0.3)


@pytest.mark.parametrize("sigma_data", [0.0, -1.0, math.nan])
def test_sigma_data_must_be_positive(sigma_data):
    with pytest.raises(ValueError, match="sigma_data"):
        TrigFlow(sigma_data)

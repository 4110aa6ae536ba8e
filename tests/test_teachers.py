"""Teachers of other frameworks in closed form, for Gaussian data, against TrigFlow's own closed form of F."""

from __future__ import annotations

import math

import pytest
import torch

from scm_media.samplers import rectified_flow_times, sample_dpm_solver, sample_heun
from scm_media.tangent import value_and_tangent
from scm_media.teachers import (
    VPrediction,
)
from scm_media.timesteps import LogNormalTimesteps
from scm_media.trigflow import TrigFlow, broadcast_time
from tests.gaussian_teachers import (
    ALPHAS_CUMPROD,
    NOTHING,
    SHAPE,
    TEACHERS,
    Posterior,
    inputs,
    make,
)


@pytest.mark.parametrize("sigma_data", [0.5, 1.0, 0.23, 2.1])
@pytest.mark.parametrize("name", TEACHERS)
def test_F_is_that_of_the_closed_form(name, sigma_data):
    teacher, oracle = make(name, sigma_data)
    u, t = inputs(teacher)
    exact = value_and_tangent(oracle, u, t, NOTHING, torch.zeros_like(u), torch.ones_like(t))
    # At the very ends t is clamped by 1.5e-8, which changes F by as much as it moves meanwhile.
    clamped = 1.5e-8 * ((t == 0) | (t == math.pi / 2))
    bound = 1e-6 + 1e-6 * exact.value.abs() + broadcast_time(clamped, u) * exact.tangent.abs()
    assert ((teacher(u, t) - exact.value).abs() <= bound).all()


@pytest.mark.parametrize("sigma_data", [0.5, 1.7])
@pytest.mark.parametrize("name", TEACHERS)
def test_the_tangent_is_that_of_the_closed_form_and_of_finite_differences(name, sigma_data):
    teacher, oracle = make(name, sigma_data)
    u, t = inputs(teacher, inside=1e-4)
    du, dt = torch.randn_like(u), torch.rand_like(t)
    tangent = value_and_tangent(teacher, u, t, NOTHING, du, dt, "forward").tangent
    exact = value_and_tangent(oracle, u, t, NOTHING, du, dt).tangent
    torch.testing.assert_close(tangent, exact, rtol=1e-6, atol=1e-6)
    h = 1e-5
    differences = (teacher(u + h * du, t + h * dt) - teacher(u - h * du, t - h * dt)) / (2 * h)
    torch.testing.assert_close(tangent, differences, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", TEACHERS)
def test_dF_dt_along_the_trajectory_is_the_closed_form(name):
    teacher, oracle = make(name)
    u, t = inputs(teacher, inside=1e-4)
    along = value_and_tangent(teacher, u, t, NOTHING, teacher(u, t), torch.ones_like(t), "forward").tangent
    torch.testing.assert_close(along, oracle.slope(0.5 * u, t), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", TEACHERS)
def test_in_float32_F_is_finite_and_right_everywhere(name):
    teacher, oracle = make(name)
    low, high = teacher.time_range
    t = torch.cat([torch.tensor([0.0, low, high, math.pi / 2]), torch.linspace(low, high, 60)])
    u = torch.randn(len(t), *SHAPE)
    with_float32 = teacher(u, t)
    assert with_float32.dtype == torch.float32
    inside = t.double().clamp(low, high)
    torch.testing.assert_close(with_float32.double(), oracle(u.double(), inside, NOTHING), rtol=5e-3, atol=5e-3)


@pytest.mark.parametrize("name", ["eps discrete", "v discrete", "x0 discrete", "eps linear"])
def test_beyond_the_schedule_F_depends_on_u_alone(name):
    teacher, _ = make(name)
    high = teacher.time_range[1]
    assert high < math.pi / 2 - 1e-3
    u = torch.randn(2, *SHAPE, dtype=torch.float64)
    t = torch.tensor([high + 2e-4, math.pi / 2], dtype=torch.float64)
    torch.testing.assert_close(teacher(u, t), teacher(u, torch.full_like(t, high)), rtol=1e-12, atol=1e-12)
    tangent = value_and_tangent(teacher, u, t, NOTHING, torch.zeros_like(u), torch.ones_like(t), "forward").tangent
    assert tangent.abs().max() == 0


@pytest.mark.parametrize("name", ["edm", "eps discrete", "v cosine", "x0 linear", "rectified"])
@pytest.mark.parametrize("sampler", [sample_heun, sample_dpm_solver])
def test_a_teacher_is_sampled_in_its_own_units(name, sampler):
    teacher, oracle = make(name, sigma_data=1.0)
    samples = sampler(teacher, noise=torch.randn(20_000, *SHAPE, dtype=torch.float64), steps=40)
    tolerance = 0.08 if name == "eps discrete" else 0.02  # its noisiest level still holds 7 % of the data
    torch.testing.assert_close(samples.mean(0), oracle.mean, atol=tolerance, rtol=0)
    torch.testing.assert_close(samples.std(0), oracle.deviation, atol=0.01, rtol=0.02)


def test_timesteps_are_those_of_the_training():
    teacher, _ = make("eps discrete", 1.0)
    seen = []
    teacher.call = lambda network, y, time, cond: seen.append(time) or y
    t = torch.atan(torch.sqrt((1 - ALPHAS_CUMPROD) / ALPHAS_CUMPROD))
    teacher(torch.zeros(1000, *SHAPE, dtype=torch.float64), t)
    torch.testing.assert_close(seen[0], torch.arange(1000, dtype=torch.float64), rtol=0, atol=1e-6)
    teacher(torch.zeros(999, *SHAPE, dtype=torch.float64), (t[1:] + t[:-1]) / 2)
    torch.testing.assert_close(seen[1], torch.arange(999, dtype=torch.float64) + 0.5, rtol=0, atol=1e-6)


def test_a_schedule_may_end_without_any_signal():
    products = torch.cos(torch.linspace(0.02, math.pi / 2, 500, dtype=torch.float64)) ** 2
    products[-1] = 0

    def path(s):
        angle = 0.02 + s * (math.pi / 2 - 0.02) / 499
        return torch.cos(angle), torch.sin(angle)

    posterior = Posterior(0.5)
    teacher = VPrediction(posterior.v(path), products, 0.5)
    assert teacher.time_range[1] == pytest.approx(math.pi / 2)
    t = torch.tensor([math.pi / 2, math.pi / 2 - 1e-5, 1.2], dtype=torch.float64)
    u = torch.randn(3, *SHAPE, dtype=torch.float64)
    torch.testing.assert_close(teacher(u, t), posterior.oracle(u, t, NOTHING), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_shifts_choose_noise_levels(shift):
    flow = TrigFlow(0.7)
    times = rectified_flow_times(5, flow, shift)
    s = torch.tensor([math.tan(time) * 0.7 / (1 + math.tan(time) * 0.7) for time in times])
    even = torch.linspace(1, 0, 6)
    torch.testing.assert_close(s, shift * even / (1 + (shift - 1) * even))
    torch.manual_seed(0)
    t = LogNormalTimesteps(0.3 + math.log(shift), 0.9).sample(1000, 0.7)
    torch.manual_seed(0)
    logit_normal = torch.sigmoid(0.3 + 0.9 * torch.randn(1000))
    s = 0.7 * torch.tan(t) / (1 + 0.7 * torch.tan(t))
    torch.testing.assert_close(s, shift * logit_normal / (1 + (shift - 1) * logit_normal))
    with pytest.raises(ValueError, match="shift must be positive"):
        rectified_flow_times(5, flow, 0.0)

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

from scm_media.conditioning import Conditioning
from scm_media.samplers import (
    CallCounter,
    check_times,
    consistency_times,
    edit_times,
    sample_consistency,
    sample_dpm_solver,
    sample_heun,
    teacher_times,
)
from scm_media.trigflow import TrigFlow
from tests.oracles import SHAPES, Gaussian, Mixture, noise_of

NOTHING = Conditioning()
FLOW = TrigFlow(0.5)
T_MAX = math.atan(160.0)
ORACLES = [pytest.param(Gaussian.random, id="gaussian"), pytest.param(Mixture, id="mixture")]


def start_at(oracle, time, num=6, seed=0):
    """Latents distributed as the oracle's x at a time, and the time for each of them."""
    generator = torch.Generator().manual_seed(seed)
    x0 = oracle.sample(num, generator)
    t = torch.full((num,), time, dtype=torch.float64)
    return oracle.flow.interpolate(x0, 0.5 * torch.randn(x0.shape, generator=generator, dtype=torch.float64), t), t


def errors(sampler, oracle, num_steps):
    x, t = start_at(oracle, 1.4)
    exact = oracle.trajectory(x, t, torch.full_like(t, 0.05))
    result = []
    for num in num_steps:
        times = [1.4 + (0.05 - 1.4) * k / num for k in range(num + 1)]
        sampled = sampler(oracle, oracle.flow, noise_of(x), times, NOTHING)
        result.append((sampled - exact).square().mean().sqrt().item())
    return result


@pytest.mark.parametrize("shape", [SHAPES[0], *(pytest.param(shape, marks=pytest.mark.slow) for shape in SHAPES[1:])])
@pytest.mark.parametrize("oracle", ORACLES)
@pytest.mark.parametrize("sampler", [sample_heun, sample_dpm_solver])
def test_the_error_falls_with_the_square_of_the_step(sampler, oracle, shape):
    coarse, middle, fine, finest = errors(sampler, oracle(shape), (64, 128, 256, 512))
    orders = [math.log2(coarse / middle), math.log2(middle / fine), math.log2(fine / finest)]
    assert all(1.8 < order < 2.3 for order in orders), orders
    assert finest < 1e-4


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("oracle", ORACLES)
@pytest.mark.parametrize(("sampler", "bound"), [(sample_heun, 0.004), (sample_dpm_solver, 0.02)])
def test_a_teachers_grid_ends_on_the_data(sampler, bound, oracle, shape):
    oracle = oracle(shape)
    x, t = start_at(oracle, T_MAX, num=32)
    sampled = sampler(oracle, FLOW, noise_of(x), teacher_times(32, FLOW), NOTHING)
    exact = oracle.trajectory(x, t, torch.zeros_like(t))
    assert (sampled - exact).square().mean().sqrt() < bound * exact.std()


@pytest.mark.parametrize("sampler", [sample_heun, sample_dpm_solver])
def test_a_teacher_can_start_from_pure_noise_at_half_pi(sampler):
    oracle = Gaussian.random((2, 5))
    x, t = start_at(oracle, math.pi / 2)
    times = (math.pi / 2, *teacher_times(64, FLOW))
    exact = oracle.trajectory(x, t, torch.zeros_like(t))
    sampled = sampler(oracle, FLOW, noise_of(x), times, NOTHING)
    assert (sampled - exact).square().mean().sqrt() < 0.01


@pytest.mark.parametrize("sampler", [sample_heun, sample_dpm_solver])
def test_one_step_is_exact_where_data_is_a_point(sampler):
    mean = torch.linspace(-1, 1, 10, dtype=torch.float64).reshape(2, 5)
    oracle = Gaussian(mean, torch.zeros_like(mean), FLOW)
    x, _ = start_at(oracle, 1.5)
    torch.testing.assert_close(sampler(oracle, FLOW, noise_of(x), (1.5, 0.4, 0.0), NOTHING), mean.expand(6, 2, 5))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("oracle", ORACLES)
@pytest.mark.parametrize("time", [T_MAX, 1.1, 0.3])
def test_one_consistency_step_of_the_exact_map_is_exact(time, oracle, shape):
    oracle = oracle(shape)
    x, t = start_at(oracle, time)
    sampled = sample_consistency(oracle.consistency, FLOW, noise_of(x), (time,), NOTHING)
    torch.testing.assert_close(sampled, oracle.trajectory(x, t, torch.zeros_like(t)), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("num_steps", [1, 2, 4])
def test_consistency_samples_of_the_exact_map_have_the_datas_moments(num_steps):
    oracle = Gaussian.random((2, 5))
    generator = torch.Generator().manual_seed(0)

    def noise(i):
        return 0.5 * torch.randn(40_000, 2, 5, generator=generator, dtype=torch.float64)

    samples = sample_consistency(oracle.consistency, FLOW, noise, consistency_times(num_steps, FLOW), NOTHING)
    torch.testing.assert_close(samples.mean(0), oracle.mean, atol=0.02, rtol=0)
    torch.testing.assert_close(samples.std(0), oracle.deviation, atol=0.0, rtol=0.02)


def test_a_start_is_noised_to_the_first_time():
    start = torch.linspace(-1, 1, 20, dtype=torch.float64).reshape(2, 2, 5)
    z = torch.full_like(start, 0.25)
    seen = []

    def backbone(u, t, cond):
        seen.append(u * 0.5)
        return torch.zeros_like(u)

    sample_consistency(backbone, FLOW, noise_of(z), (0.6,), NOTHING, start=start)
    torch.testing.assert_close(seen[0], math.cos(0.6) * start + math.sin(0.6) * z)


def test_each_step_renoises_what_the_constraint_left():
    seen, asked = [], []

    def backbone(u, t, cond):
        seen.append((u * 0.5, t[0].item()))
        return torch.zeros_like(u)

    def noise(i):
        asked.append(i)
        return torch.full((1, 1, 3), 0.1 * (i + 1), dtype=torch.float64)

    result = sample_consistency(
        backbone, FLOW, noise, (1.5, 0.7), NOTHING, constrain=lambda x0, i: torch.full_like(x0, 10.0 + i)
    )
    assert asked == [0, 1]
    assert [t for _, t in seen] == [1.5, 0.7]
    assert seen[1][0].flatten()[0].item() == pytest.approx(math.cos(0.7) * 10 + math.sin(0.7) * 0.2)
    assert (result == 11).all()


def test_evaluations_are_counted():
    oracle = Gaussian.random((2, 5))
    x, _ = start_at(oracle, T_MAX)
    spent = {}
    for name, sampler, times in [
        ("heun", sample_heun, teacher_times(32, FLOW)),
        ("dpm", sample_dpm_solver, teacher_times(32, FLOW)),
        ("heun, not to zero", sample_heun, (1.0, 0.5, 0.1)),
    ]:
        counted = CallCounter(oracle)
        sampler(counted, FLOW, noise_of(x), times, NOTHING)
        spent[name] = counted.evaluations
    counted = CallCounter(oracle)
    sample_consistency(counted, FLOW, lambda i: x, consistency_times(4, FLOW), NOTHING)
    assert spent == {"heun": 63, "dpm": 32, "heun, not to zero": 4}
    assert counted.evaluations == 4


def test_samplers_keep_the_dtype_of_the_noise_and_build_no_graph():
    weight = torch.nn.Parameter(torch.tensor(0.3))
    for sampler, times in [
        (sample_consistency, (1.5, 1.1)),
        (sample_heun, (1.5, 0.7, 0.0)),
        (sample_dpm_solver, (1.5, 0.7, 0.0)),
    ]:
        x0 = sampler(lambda u, t, cond: (weight * u).bfloat16(), FLOW, lambda i: torch.ones(2, 1, 3), times, NOTHING)
        assert x0.dtype == torch.float32
        assert not x0.requires_grad


def test_consistency_times():
    assert consistency_times(1, FLOW) == pytest.approx((T_MAX,))
    assert consistency_times(2, FLOW) == pytest.approx((T_MAX, 1.1))
    assert consistency_times(4, FLOW) == pytest.approx((T_MAX, 1.1, 1.1 * 2 / 3, 1.1 / 3))
    assert consistency_times(2, FLOW, sigma_max=5.0, second=0.8) == pytest.approx((math.atan(10), 0.8))


def test_teacher_times_are_the_grid_of_edm():
    times = teacher_times(5, FLOW)
    assert len(times) == 6
    assert times[-1] == 0
    sigmas = [FLOW.sigma_from_time(time) for time in times[:-1]]
    roots = [sigma ** (1 / 7) for sigma in sigmas]
    assert sigmas[0] == pytest.approx(80)
    assert sigmas[-1] == pytest.approx(0.002)
    gaps = [earlier - later for earlier, later in pairwise(roots)]
    assert gaps == pytest.approx([gaps[0]] * 4)


@pytest.mark.parametrize("num_steps", [0, -3])
@pytest.mark.parametrize("make", [consistency_times, teacher_times])
def test_less_than_one_step_is_refused(make, num_steps):
    with pytest.raises(ValueError, match=f"steps must be at least 1, got {num_steps}"):
        make(num_steps, FLOW)


@pytest.mark.parametrize(
    ("times", "message"),
    [
        ((), "empty"),
        ((1.0, 1.2), "descend"),
        ((1.0, 1.0), "descend"),
        ((1.6,), "1.6"),
        ((1.0, 0.0), "got 0.0"),
        ((float("nan"),), "nan"),
    ],
)
def test_times_out_of_order_or_range_are_refused(times, message):
    with pytest.raises(ValueError, match=message):
        check_times(times)
    with pytest.raises(ValueError, match=message):
        sample_consistency(lambda u, t, cond: u, FLOW, lambda i: torch.zeros(1, 1, 2), times, NOTHING)


@pytest.mark.parametrize("sampler", [sample_heun, sample_dpm_solver])
@pytest.mark.parametrize("times", [(), (0.0,), (0.5, 0.0, 0.0), (0.5, 1.0, 0.0)])
def test_teachers_refuse_times_that_do_not_descend(sampler, times):
    with pytest.raises(ValueError, match="times"):
        sampler(lambda u, t, cond: u, FLOW, lambda i: torch.zeros(1, 1, 2), times, NOTHING)


def test_sigmas_out_of_order_are_refused():
    with pytest.raises(ValueError, match="sigma_min"):
        teacher_times(4, FLOW, sigma_min=2.0, sigma_max=1.0)


def test_the_times_of_edits_are_even_in_t_and_end_one_step_above_zero():
    assert edit_times(4, FLOW) == pytest.approx([T_MAX, 0.75 * T_MAX, 0.5 * T_MAX, 0.25 * T_MAX])
    assert edit_times(1, FLOW, sigma_max=1.0) == (math.atan(2.0),)
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        edit_times(0, FLOW)

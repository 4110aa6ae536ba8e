"""Discrete consistency on Gaussian data, whose trajectories and consistency function are known in closed form."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from scm_media.conditioning import Conditioning
from scm_media.discrete_consistency import DiscreteConsistencyLoss
from scm_media.samplers import teacher_times
from scm_media.timesteps import UniformTimesteps
from scm_media.trigflow import TrigFlow
from tests.oracles import Gaussian

FLOW, SHAPE, TIMES = TrigFlow(0.5), (2, 5), UniformTimesteps(0.2, 1.5)


def of(oracle, **settings):
    return DiscreteConsistencyLoss(oracle.consistency, FLOW, TIMES, **{"max_steps": 800, **settings})


def x0_of(oracle, num=256):
    return oracle.sample(num, torch.Generator().manual_seed(0))


def test_the_gap_is_that_of_easy_consistency_tuning():
    loss = of(Gaussian.random(SHAPE), q=2.0, stages=4, max_steps=400)
    t = torch.tensor([0.3, 1.0, 1.5], dtype=torch.float64)
    for step, shrinking in ((0, 1), (99, 1), (100, 2), (399, 4), (5000, 4)):
        sigma = 0.5 * torch.tan(t)
        expected = (sigma * (1 - (1 + 8 / (1 + torch.exp(sigma))) / 2**shrinking)).clamp(min=0)
        torch.testing.assert_close(loss.earlier_time(t, step), torch.atan(expected / 0.5))


def test_the_exact_consistency_function_has_a_loss_that_falls_with_the_gap():
    """A step of the teacher errs as the square of the gap; the path of the data leaves the trajectory at once."""
    oracle, found = Gaussian.random(SHAPE), []
    for stages in (4, 6, 8):
        torch.manual_seed(1)
        loss = of(oracle, teacher=oracle, stages=stages)
        found.append(loss(x0_of(oracle), Conditioning(), step=799)[1]["loss"].mean().sqrt().item())
    assert found[0] / found[1] > 8 and found[1] / found[2] > 10
    assert found[2] < 2e-4


def test_from_data_neighbours_share_data_and_noise():
    seen = []

    class Watching(nn.Module):
        def forward(self, u, t, cond):
            seen.append((u * 0.5, t))
            return torch.zeros_like(u)

    x0 = torch.randn(8, *SHAPE)
    loss = DiscreteConsistencyLoss(Watching(), FLOW, TIMES, max_steps=10)
    torch.manual_seed(2)
    _, terms = loss(x0, step=9)
    torch.manual_seed(2)
    z, t = loss.draw(x0)
    (x_s, s), (x_t, given) = seen
    torch.testing.assert_close(given, t)
    torch.testing.assert_close(x_t, FLOW.interpolate(x0, z, t))
    torch.testing.assert_close(x_s, FLOW.interpolate(x0, z, s))
    torch.testing.assert_close(terms["gap"], t - s)
    assert (s < t).all()


def test_gradients_reach_the_student_by_the_noisier_point_alone():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.gain = nn.Parameter(torch.tensor(0.3))

        def forward(self, u, t, cond):
            return self.gain * u

    student, x0 = Scaled(), torch.randn(64, *SHAPE)
    loss = DiscreteConsistencyLoss(student, FLOW, TIMES, max_steps=10)
    torch.manual_seed(2)
    value, _ = loss(x0, step=9)
    (gradient,) = torch.autograd.grad(value, [student.gain])
    torch.manual_seed(2)
    z, t = loss.draw(x0)
    s = loss.earlier_time(t, 9)
    x_t, x_s = FLOW.interpolate(x0, z, t), FLOW.interpolate(x0, z, s)

    def distance(gain):
        error = FLOW.denoise(x_t, gain * x_t / 0.5, t) - FLOW.denoise(x_s, 0.3 * x_s / 0.5, s)
        return ((torch.sqrt(error.square().flatten(1).mean(1) + 0.00054**2) - 0.00054) / (t - s)).mean()

    gain = torch.tensor(0.3, requires_grad=True)
    torch.testing.assert_close(gradient, torch.autograd.grad(distance(gain), [gain])[0])


def test_dropout_is_the_same_at_both_points():
    network = nn.Dropout(0.5)

    class Dropping(nn.Module):
        def forward(self, u, t, cond):
            return network(torch.ones_like(u)) / t.reshape(-1, 1, 1).sin()

    loss = DiscreteConsistencyLoss(Dropping(), FLOW, TIMES, max_steps=10)
    x0 = torch.zeros(4, *SHAPE)
    loss.draw = lambda x0: (torch.zeros_like(x0), torch.full((4,), 1.0))
    _, terms = loss(x0, step=9)
    assert terms["loss"].max() == 0, "f = -0.5 · mask at both"


def test_the_grid_has_neighbouring_times_and_doubles():
    loss = of(Gaussian.random(SHAPE), schedule="grid", grid=(4, 32), max_steps=400)
    assert [loss.num_grid_steps(step) for step in (0, 99, 100, 299, 300, 399, math.inf)] == [4, 4, 8, 16, 32, 32, 32]
    times = torch.tensor(teacher_times(4, FLOW))
    drawn = torch.tensor([0.0021, 0.02, 1.0, 1.56])
    t, s = loss.neighbours(drawn, 0)
    for now, before, at in zip(t, s, drawn, strict=True):
        place = (times - now).abs().argmin().item()
        torch.testing.assert_close(now, times[place])
        torch.testing.assert_close(before, times[place + 1])
        assert before < at <= now, "the drawn time lies between its two neighbours"
    assert loss.neighbours(torch.tensor([0.001]), 0)[1].item() == 0, "the lowest point is the data"
    loss.limit_times(5.0)
    assert loss.neighbours(torch.tensor([FLOW.time_from_sigma(5.0)]), 0)[0].item() == pytest.approx(
        FLOW.time_from_sigma(5.0)
    )


def test_first_published_the_loss_is_the_mean_square():
    oracle = Gaussian.random(SHAPE)
    given = {"teacher": oracle, "schedule": "grid", "grid": (18, 18)}
    torch.manual_seed(1)
    value, terms = of(oracle, **given, distance="l2", divide_by_gap=False)(x0_of(oracle), Conditioning(), step=0)
    torch.testing.assert_close(value, terms["loss"].mean())
    torch.manual_seed(1)
    finer = of(oracle, **{**given, "grid": (320, 320)})(x0_of(oracle), Conditioning(), step=0)[1]
    assert finer["loss"].mean() < 1e-3 * terms["loss"].mean(), "the exact map errs as the step of the teacher"


def test_the_constants_of_the_gap_can_be_set():
    t = torch.tensor([0.5, 1.2]).double()
    sigma = 0.5 * torch.tan(t)
    s = of(Gaussian.random(SHAPE), k=3.0, b=2.0, q=4.0, stages=1).earlier_time(t, 0)
    torch.testing.assert_close(0.5 * torch.tan(s), (sigma * (1 - (1 + 3 * torch.sigmoid(-2 * sigma)) / 4)).clamp(min=0))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"schedule": "fixed"}, "schedule must be"),
        ({"distance": "lpips"}, "distance must be"),
        ({"grid": (8, 4)}, "two numbers of steps"),
        ({"b": 0.0}, "b above 0"),
        ({"q": 1.0}, "q must be above 1"),
        ({"stages": 0}, "stages and max_steps"),
        ({"max_steps": 0}, "at least 1"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        of(Gaussian.random(SHAPE), **settings)


def test_a_step_is_required():
    oracle = Gaussian.random(SHAPE)
    with pytest.raises(ValueError, match="needs the step"):
        of(oracle)(x0_of(oracle))

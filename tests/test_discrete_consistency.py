"""Discrete consistency on Gaussian data, whose trajectories and consistency function are known in closed form."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from scm_media.conditioning import Conditioning
from scm_media.discrete_consistency import DiscreteConsistencyLoss
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


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"q": 1.0}, "q must be above 1"), ({"stages": 0}, "stages and max_steps"), ({"max_steps": 0}, "at least 1")],
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        of(Gaussian.random(SHAPE), **settings)


def test_a_step_is_required():
    oracle = Gaussian.random(SHAPE)
    with pytest.raises(ValueError, match="needs the step"):
        of(oracle)(x0_of(oracle))

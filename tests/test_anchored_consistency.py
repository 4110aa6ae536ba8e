"""The consistency loss with the regression beside it."""

from __future__ import annotations

import pytest
import torch

import scm_media as scm
from scm_media.conditioning import Conditioning
from scm_media.timesteps import LogNormalTimesteps
from scm_media.trajectories import Trajectory
from scm_media.trigflow import TrigFlow
from tests.oracles import Gaussian

FLOW, SHAPE, TIMES = TrigFlow(0.5), (2, 5), LogNormalTimesteps(0.0, 1.0)


def points(oracle, num=64):
    """Points of trajectories of Gaussian data at random times, and their ends."""
    generator = torch.Generator().manual_seed(0)
    x0 = oracle.sample(num, generator)
    t = torch.rand(num, generator=generator, dtype=torch.float64) * 1.4 + 0.1
    return Trajectory(oracle.trajectory(x0, torch.zeros_like(t), t), t, x0)


def test_the_loss_is_the_sum_of_both():
    oracle, values = Gaussian.random(SHAPE), []
    trajectory = points(oracle)
    for anchor in (0.0, 2.0):
        loss = scm.AnchoredConsistencyLoss(oracle, FLOW, TIMES, teacher=oracle, anchor=anchor, tangent_warmup=0)
        torch.manual_seed(1)
        values.append(loss(trajectory)[0].item())
    plain = scm.ConsistencyLoss(oracle, FLOW, TIMES, teacher=oracle, tangent_warmup=0)
    torch.manual_seed(1)
    assert values[0] == pytest.approx(plain(trajectory.x0)[0].item())
    regression = scm.RegressionLoss(oracle, FLOW)(trajectory)[0].item()
    assert values[1] - values[0] == pytest.approx(2.0 * regression / 0.25, rel=1e-6)


def test_the_exact_consistency_function_has_nothing_to_learn():
    oracle = Gaussian.random(SHAPE)
    loss = scm.AnchoredConsistencyLoss(oracle.consistency, FLOW, TIMES, teacher=oracle, tangent_warmup=0)
    value, terms = loss(points(oracle), Conditioning())
    assert value.item() < 1e-10 and terms["g_rms"].max() < 1e-6 and terms["anchor"].max() < 1e-10


@pytest.mark.parametrize(
    ("options", "message"),
    [({"anchor": -1}, "anchor must be a weight of at least 0, got -1"), ({"teacher": None}, "needs the teacher")],
)
def test_settings_that_cannot_be_are_refused(options, message):
    oracle = Gaussian.random(SHAPE)
    with pytest.raises(ValueError, match=message):
        scm.AnchoredConsistencyLoss(oracle, FLOW, **{"teacher": oracle, **options})

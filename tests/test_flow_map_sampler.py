"""The sampler of flow maps on Gaussian data and a mixture, whose flow maps are known in closed form."""

from __future__ import annotations

import pytest
import torch

from scm_media.flow_map_sampler import sample_flow_map
from scm_media.samplers import sample_consistency
from scm_media.trigflow import TrigFlow
from tests.oracles import FlowMapOracle, Gaussian, Mixture, noise_of

FLOW, SHAPE = TrigFlow(0.5), (2, 5)


@pytest.mark.parametrize("oracle", [Gaussian.random(SHAPE), Mixture(SHAPE)], ids=["gaussian", "mixture"])
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_sampling_a_true_map_ends_where_the_ode_does_at_any_number_of_steps(oracle, steps):
    z = torch.randn(8, *SHAPE, generator=torch.Generator().manual_seed(2), dtype=torch.float64) * 0.5
    made = sample_flow_map(FlowMapOracle(oracle), FLOW, noise_of(z), tuple(1.5 - 0.25 * k for k in range(steps)))
    ends = oracle.trajectory(z, torch.full((8,), 1.5).double(), torch.zeros(8).double())
    torch.testing.assert_close(made, ends, atol=1e-6, rtol=1e-6)


def test_with_all_noise_the_steps_are_consistency_steps():
    oracle = Gaussian.random(SHAPE)
    given = {"shape": (4, *SHAPE), "steps": 3, "seed": 3}
    model = FlowMapOracle(oracle)
    made = sample_flow_map(model, FLOW, gamma=1.0, **given)
    torch.testing.assert_close(made, sample_consistency(model, FLOW, **given), atol=1e-6, rtol=1e-6)
    assert (made - sample_flow_map(model, FLOW, gamma=0.0, **given)).abs().max() > 0.01


@pytest.mark.parametrize("gamma", [0.3, 0.8])
def test_noise_between_the_steps_keeps_the_distribution(gamma):
    oracle = Gaussian.random((1, 2))
    made = sample_flow_map(
        FlowMapOracle(oracle), FLOW, shape=(40_000, 1, 2), times=(1.5, 1.0, 0.5), seed=4, gamma=gamma
    )
    torch.testing.assert_close(made.std(0).double(), oracle.deviation, atol=0.01, rtol=0.02)
    torch.testing.assert_close(made.mean(0).double(), oracle.mean, atol=0.02, rtol=0.02)


def test_a_gamma_out_of_range_is_refused():
    with pytest.raises(ValueError, match=r"gamma must lie in \[0, 1\]"):
        sample_flow_map(FlowMapOracle(Gaussian.random(SHAPE)), FLOW, shape=(1, *SHAPE), gamma=1.2)

from __future__ import annotations

import math

import pytest
import torch

from scm_media.timesteps import LogNormalTimesteps, UniformTimesteps


@pytest.mark.parametrize("stratified", [False, True])
@pytest.mark.parametrize(("mean", "std"), [(-0.8, 1.6), (-1.0, 1.4)])
def test_log_sigma_is_normal(mean, std, stratified):
    t = LogNormalTimesteps(mean, std, stratified).sample(20_000, 0.5, torch.Generator().manual_seed(0))
    log_sigma = torch.log(0.5 * torch.tan(t.double()))
    assert t.shape == (20_000,)
    assert t.dtype == torch.float32
    assert t.min() > 0
    assert t.max() < math.pi / 2
    assert log_sigma.mean().item() == pytest.approx(mean, abs=0.05)
    assert log_sigma.std().item() == pytest.approx(std, abs=0.05)


def test_stratified_times_fill_every_quantile_once():
    timesteps = LogNormalTimesteps(-1.0, 1.4, stratified=True)
    t = timesteps.sample(64, 0.5, torch.Generator().manual_seed(0))
    quantiles = torch.special.ndtr((torch.log(0.5 * torch.tan(t.double())) + 1.0) / 1.4)
    assert sorted((quantiles * 64).floor().int().tolist()) == list(range(64))
    assert not torch.equal(t, t.sort().values)


@pytest.mark.parametrize(
    "timesteps", [LogNormalTimesteps(-1.0, 1.4), LogNormalTimesteps(-1, 1.4, True), UniformTimesteps()]
)
def test_times_are_a_function_of_the_generator(timesteps):
    draws = [timesteps.sample(16, 0.5, torch.Generator().manual_seed(5)) for _ in range(2)]
    assert torch.equal(*draws)


def test_uniform_times_lie_between_low_and_high():
    t = UniformTimesteps(0.5, 0.6).sample(1000, 0.5, torch.Generator().manual_seed(0))
    assert t.min() >= 0.5
    assert t.max() < 0.6 + 1e-6
    assert t.mean().item() == pytest.approx(0.55, abs=0.005)


def test_std_must_be_positive():
    with pytest.raises(ValueError, match="std"):
        LogNormalTimesteps(-1.0, 0.0)


def test_scaled_times_stand_for_noise_levels_in_proportion_to_the_data():
    generators = [torch.Generator().manual_seed(0) for _ in range(2)]
    half = LogNormalTimesteps(-0.8, 1.5).sample(1000, 0.5, generators[0])
    double = LogNormalTimesteps.for_sigma_data(-0.8, 1.5, 2.0).sample(1000, 2.0, generators[1])
    torch.testing.assert_close(double, half)

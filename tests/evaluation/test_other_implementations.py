"""Fréchet and kernel distance against those of torchmetrics, on the same features."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from scm_media.evaluation import Moments, frechet_distance, kernel_distance


class Given(nn.Module):
    """Takes the features themselves for images."""

    num_features = 16

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


@pytest.fixture
def features():
    generator = torch.Generator().manual_seed(0)
    mix = torch.randn(16, 16, generator=generator) / 4
    return (
        torch.randn(700, 16, generator=generator) @ mix * 1.3 + 0.4,
        torch.randn(900, 16, generator=generator) @ mix,
    )


def test_the_frechet_distance_is_that_of_torchmetrics(features):
    metric = FrechetInceptionDistance(feature=Given(), normalize=True)
    for values, real in zip(features, (False, True), strict=True):
        metric.update(values, real=real)
    a, b = map(Moments.of, features)
    assert frechet_distance(a.mean, a.covariance, b.mean, b.covariance) == pytest.approx(
        float(metric.compute()), rel=1e-3
    )


def test_the_kernel_distance_is_that_of_torchmetrics(features):
    generated, real = features[0], features[1][:700]
    metric = KernelInceptionDistance(feature=Given(), subsets=1, subset_size=700, normalize=True)
    metric.update(generated, real=False)
    metric.update(real, real=True)
    assert kernel_distance(generated, real) == pytest.approx(float(metric.compute()[0]), rel=1e-3)

"""The Fréchet distance against closed forms."""

from __future__ import annotations

import pytest
import torch
from scipy import linalg

from scm_media.evaluation import Moments, frechet_distance


def _covariance(dimension: int, rank: int) -> torch.Tensor:
    root = torch.randn(dimension, rank, dtype=torch.float64)
    return root @ root.T


def test_diagonal_gaussians():
    a, b = torch.rand(7, dtype=torch.float64) + 0.1, torch.rand(7, dtype=torch.float64) + 0.1
    mean = torch.randn(7, dtype=torch.float64)
    expected = mean.square().sum() + (a.sqrt() - b.sqrt()).square().sum()
    assert frechet_distance(mean, a.diag(), torch.zeros(7), b.diag()) == pytest.approx(float(expected), rel=1e-10)


def test_commuting_and_scaled_covariances():
    covariance = _covariance(9, 9)
    mean = torch.zeros(9)
    assert frechet_distance(mean, covariance, mean, covariance) == pytest.approx(0, abs=1e-7)
    expected = float(covariance.trace())  # (1 − 2)² tr(A) for B = 4 A
    assert frechet_distance(mean, covariance, mean, 4 * covariance) == pytest.approx(expected, rel=1e-9)


def test_two_dimensions_in_closed_form():
    a, b = _covariance(2, 2), _covariance(2, 2)
    # tr (AB)^½ = (tr AB + 2 √det AB)^½ in two dimensions
    root = ((a @ b).trace() + 2 * torch.linalg.det(a @ b).sqrt()).sqrt()
    expected = float(a.trace() + b.trace() - 2 * root)
    assert frechet_distance(torch.ones(2), a, torch.ones(2), b) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("rank", [3, 20])
def test_the_same_as_a_matrix_square_root(rank):
    a, b = _covariance(20, 20), _covariance(20, rank) + 1e-6 * torch.eye(20)
    mean_a, mean_b = torch.randn(20), torch.randn(20)
    root = linalg.sqrtm((a @ b).numpy()).real.trace()
    expected = float((mean_a - mean_b).double().square().sum() + a.trace() + b.trace()) - 2 * root
    assert frechet_distance(mean_a, a, mean_b, b) == pytest.approx(expected, rel=1e-5)


def test_symmetric_and_finite_with_fewer_samples_than_dimensions():
    a, b = Moments.of(torch.randn(5, 30)), Moments.of(torch.randn(8, 30) + 1)
    one = frechet_distance(a.mean, a.covariance, b.mean, b.covariance)
    other = frechet_distance(b.mean, b.covariance, a.mean, a.covariance)
    assert one == pytest.approx(other, rel=1e-6)
    assert one > 0


def test_moments_in_batches_equal_moments_at_once():
    features = torch.randn(1000, 6) * 3 + 50
    moments = Moments(6)
    for part in features.split(137):
        moments.update(part)
    assert torch.allclose(moments.mean, features.double().mean(0), rtol=1e-12)
    assert torch.allclose(moments.covariance, features.double().T.cov(), rtol=1e-9)
    with pytest.raises(ValueError, match="at least 2 samples, got 1"):
        _ = Moments.of(features[:1]).covariance

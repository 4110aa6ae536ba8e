"""Precision and recall against brute force and cases that are plain."""

from __future__ import annotations

import pytest
import torch

from scm_media.evaluation import neighbours, precision_recall


def _brute_share(points: torch.Tensor, manifold: torch.Tensor, k: int) -> float:
    radii = [
        sorted(float((x - y).norm()) for j, y in enumerate(manifold) if j != i)[k - 1] for i, x in enumerate(manifold)
    ]
    inside = [any(float((p - m).norm()) <= r for m, r in zip(manifold, radii, strict=True)) for p in points]
    return sum(inside) / len(inside)


@pytest.mark.parametrize("k", [1, 3])
def test_equals_brute_force(monkeypatch, k):
    monkeypatch.setattr(neighbours, "CHUNK", 7)
    real, generated = torch.randn(30, 2), torch.randn(25, 2) * 1.5 + 0.5
    precision, recall = precision_recall(real, generated, k)
    assert precision == pytest.approx(_brute_share(generated, real, k))
    assert recall == pytest.approx(_brute_share(real, generated, k))
    assert 0 < precision < 1


def test_copies_are_perfect_and_strangers_are_nothing():
    real = torch.randn(100, 5)
    assert precision_recall(real, real.clone()) == (1.0, 1.0)
    assert precision_recall(real, real + 100) == (0.0, 0.0)


def test_a_collapsed_model_has_precision_without_recall():
    real = torch.randn(500, 4)
    precision, recall = precision_recall(real, real[:1] + 0.01 * torch.randn(500, 4))
    assert precision == 1.0
    assert recall < 0.1


def test_distances_are_euclidean_and_exact_near_zero():
    a = torch.tensor([[1000.0, 1000.0], [3.0, 4.0]])
    b = torch.tensor([[1000.0, 1000.001], [0.0, 0.0]])
    expected = (a[:, None].double() - b[None].double()).square().sum(2).sqrt().float()
    torch.testing.assert_close(neighbours.distances(a, b), expected, rtol=1e-6, atol=0)


def test_too_few_points_are_refused():
    with pytest.raises(ValueError, match="more than 3 samples"):
        precision_recall(torch.randn(3, 2), torch.randn(10, 2))

"""Precision, recall, density and coverage against brute force and cases that are plain."""

from __future__ import annotations

import pytest
import torch

from scm_media.evaluation import neighbours, precision_recall
from scm_media.evaluation.neighbours import NeighbourTerms, RealBalls


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


def test_density_and_coverage_of_a_case_by_hand():
    """Real points 0 … 5 on a line reach to their fifth other point: balls of radius 5, 4, 3, 3, 4, 5."""
    real, generated = torch.arange(6.0)[:, None], torch.tensor([[-4.5], [0.0], [9.0], [50.0]])
    balls = RealBalls.of(real)
    assert balls.density_radii.tolist() == [5, 4, 3, 3, 4, 5]
    assert balls.radii.tolist() == [3, 2, 2, 2, 2, 3]
    terms = NeighbourTerms.of(balls, generated)
    assert terms.covered.int().tolist() == [
        [1, 1, 0, 0],
        [0, 1, 0, 0],
        [0, 1, 0, 0],
        [0, 1, 0, 0],
        [0, 1, 0, 0],
        [0, 1, 1, 0],
    ]
    assert terms.density.tolist() == pytest.approx([1 / 5, 6 / 5, 1 / 5, 0])
    assert terms.precise.tolist() == [0, 1, 0, 0]
    figures = terms.figures()
    assert (figures["density"], figures["coverage"]) == (pytest.approx(8 / 20), 1.0)
    far = NeighbourTerms.of(balls, torch.tensor([[-4.5], [-4.6], [-4.7], [-4.8]])).figures()
    assert (far["density"], far["coverage"]) == (pytest.approx(1 / 5), pytest.approx(1 / 6))


def test_terms_have_the_means_that_precision_and_recall_are(monkeypatch):
    monkeypatch.setattr(neighbours, "CHUNK", 11)
    real, generated = torch.randn(60, 3), torch.randn(45, 3) * 1.4 + 0.3
    figures = NeighbourTerms.of(RealBalls.of(real), generated).figures()
    assert (figures["precision"], figures["recall"]) == pytest.approx(precision_recall(real, generated))
    assert 0 < figures["recall"] < 1


def test_samples_of_the_data_have_the_expected_density_and_coverage():
    """Equal distributions have E[density] = 1 and E[coverage] = 1 − (N−1)…(N−k) / (2N−1)…(2N−k)."""
    num, k, found = 200, neighbours.NUM_DENSITY_BALL, []
    for _ in range(20):
        figures = NeighbourTerms.of(RealBalls.of(torch.randn(num, 4)), torch.randn(num, 4)).figures()
        found.append((figures["density"], figures["coverage"]))
    density, coverage = torch.tensor(found).mean(0).tolist()
    missed = torch.tensor([(num - i) / (2 * num - i) for i in range(1, k + 1)]).prod()
    assert density == pytest.approx(1, abs=0.03)
    assert coverage == pytest.approx(1 - float(missed), abs=0.01)


def test_too_few_points_have_no_terms():
    with pytest.raises(ValueError, match="more than 5 real samples, got 5"):
        RealBalls.of(torch.randn(5, 2))
    with pytest.raises(ValueError, match="more than 3 generated samples, got 3"):
        NeighbourTerms.of(RealBalls.of(torch.randn(9, 2)), torch.randn(3, 2))

"""Intervals hold the figures that they are of in as many repetitions as they say; resamples are repeated samples."""

from __future__ import annotations

import pytest
import torch

from scm_media.evaluation.bootstrap import distance_interval, draw_counts, hit_interval, mean_interval
from scm_media.evaluation.frechet import Moments, frechet_distance, resampled_distances, square_root
from scm_media.evaluation.kernel import KernelTerms
from scm_media.evaluation.neighbours import NeighbourTerms, RealBalls


def _share_inside(intervals: list[list[float]], figure: float) -> float:
    return sum(low <= figure <= high for low, high in intervals) / len(intervals)


def test_resamples_hold_as_many_samples_and_are_the_same_every_time():
    counts = draw_counts(50, 200)
    assert counts.shape == (200, 50)
    assert (counts.sum(1) == 50).all()
    assert float((counts > 0).float().mean()) == pytest.approx(1 - (1 - 1 / 50) ** 50, abs=0.01)
    draw_counts.cache_clear()
    assert torch.equal(counts, draw_counts(50, 200))
    assert not torch.equal(counts, draw_counts(50, 200, seed=1))


def test_a_resampled_frechet_distance_is_that_of_the_samples_repeated():
    features, mean = torch.randn(30, 5) + 100, torch.full((5,), 100.0)
    covariance = (root := torch.randn(5, 5, dtype=torch.float64)) @ root.T
    counts = draw_counts(30, 7)
    found = resampled_distances(features, counts, mean, covariance, square_root(covariance))
    for count, distance in zip(counts, found, strict=True):
        moments = Moments.of(features.repeat_interleave(count.long(), 0))
        expected = frechet_distance(mean, covariance, moments.mean, moments.covariance)
        assert float(distance) == pytest.approx(expected, rel=1e-8)


def test_the_interval_holds_a_known_frechet_distance_as_often_as_it_says():
    """Samples of N(m, s² I) against N(0, I): the distance is |m|² + d (s − 1)²; 0.04 is two deviations of 150."""
    dimension, num, scale, repeats = 4, 700, 1.5, 150
    shift = torch.tensor([0.5, 0.5, 0.0, 0.0])
    known = float(shift.square().sum()) + dimension * (scale - 1) ** 2
    identity, origin = torch.eye(dimension, dtype=torch.float64), torch.zeros(dimension)
    generator = torch.Generator().manual_seed(0)
    intervals, figures = [], []
    for _ in range(repeats):
        features = torch.randn(num, dimension, generator=generator) * scale + shift
        moments = Moments.of(features)
        figures.append(frechet_distance(origin, identity, moments.mean, moments.covariance))
        intervals.append(
            distance_interval(
                figures[-1],
                lambda counts, features=features: resampled_distances(features, counts, origin, identity, identity),
                num,
            )
        )
    assert _share_inside(intervals, known) == pytest.approx(0.95, abs=0.04)
    slopes = 4 * shift.square().sum() + 4 * dimension * (scale - 1) ** 2 / 2  # of the distance by mean and deviation
    deviation = float(slopes * scale**2 / num) ** 0.5
    width = sum(high - low for low, high in intervals) / repeats
    assert width == pytest.approx(2 * 1.96 * deviation, rel=0.05)


@pytest.mark.slow
def test_resampling_moves_a_frechet_distance_upwards_and_the_interval_not():
    dimension, num = 24, 200
    identity, origin = torch.eye(dimension, dtype=torch.float64), torch.zeros(dimension)
    generator = torch.Generator().manual_seed(0)
    resamples, figures, intervals = [], [], []
    for _ in range(30):
        features = torch.randn(num, dimension, generator=generator)

        def resample(counts, features=features):
            return resampled_distances(features, counts, origin, identity, identity)

        moments = Moments.of(features)
        figures.append(frechet_distance(origin, identity, moments.mean, moments.covariance))
        drawn = resample(draw_counts(num, 100))
        resamples.append(drawn.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist())
        intervals.append(distance_interval(figures[-1], resample, num, lowest=0.0))
    expectation = sum(figures) / len(figures)
    assert _share_inside(resamples, expectation) < 0.1, "percentiles of resamples, which are biased"
    assert _share_inside(intervals, expectation) > 0.93


def test_intervals_of_fractions_and_of_the_kernel_distance_hold_their_expectation():
    dimension, num, repeats = 6, 150, 100
    generator = torch.Generator().manual_seed(0)
    real = torch.randn(num, dimension, generator=generator)
    balls = RealBalls.of(real)
    figures: dict[str, list[float]] = {}
    intervals: dict[str, list[list[float]]] = {}
    for _ in range(repeats):
        features = torch.randn(num, dimension, generator=generator) * 0.9 + 0.3
        terms, kernel = NeighbourTerms.of(balls, features), KernelTerms.of(features, real)
        found = {**terms.figures(), "kernel": kernel.distance()}
        told = {
            "precision": mean_interval(terms.precise),
            "density": mean_interval(terms.density),
            "recall": hit_interval(terms.recalled),
            "coverage": hit_interval(terms.covered),
            "kernel": distance_interval(found["kernel"], kernel.resample, num),
        }
        for name, interval in told.items():
            figures.setdefault(name, []).append(found[name])
            intervals.setdefault(name, []).append(interval)
    for name, values in figures.items():
        share = _share_inside(intervals[name], sum(values) / repeats)
        exact = name in ("precision", "density", "kernel")
        assert (0.89 if exact else 0.93) <= share <= 1.0, f"{name}: {share}"
        width = sum(high - low for low, high in intervals[name]) / repeats
        assert width < 2 * 2 * 1.96 * float(torch.tensor(values).std()), f"{name}: too wide to say anything"


def test_fractions_stay_within_0_and_1():
    hits = torch.eye(4, dtype=torch.bool)
    low, high = hit_interval(hits)
    assert high == 1.0
    assert low <= 1.0
    assert hit_interval(torch.zeros(4, 6, dtype=torch.bool)) == [0.0, 0.0]
    assert mean_interval(torch.ones(9)) == [1.0, 1.0]


def test_the_jackknife_of_hits_is_that_by_hand():
    """Rows 0 and 1 are hit by sample 0 alone, row 2 by both others, row 3 by none: 0.25, 0.75, 0.75 without each."""
    hits = torch.tensor([[1, 0, 0], [1, 0, 0], [0, 1, 1], [0, 0, 0]], dtype=torch.bool)
    mean = (0.25 + 0.75 + 0.75) / 3
    deviation = (2 / 3 * ((0.25 - mean) ** 2 + 2 * (0.75 - mean) ** 2)) ** 0.5
    low, high = hit_interval(hits)
    assert low == pytest.approx(max(0.75 - 1.959964 * deviation, 0))
    assert high == 1.0
    many = torch.zeros(40, 3, dtype=torch.bool)
    many[:10, 0], many[10:20, 1:] = True, True
    low, high = hit_interval(many)
    assert (high - low) / 2 == pytest.approx(1.959964 * (2 / 3 * (0.25**2 * 6 / 9)) ** 0.5, rel=1e-5)

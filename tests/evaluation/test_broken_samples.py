"""Deliberately broken samples: what each figure says of noise, of a missing class, and of samples that repeat."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from scm_media.evaluation.figures import Comparison
from scm_media.evaluation.frechet import Moments
from scm_media.evaluation.measured import Measured
from scm_media.evaluation.reference import Reference

NUM, CLASSES = 400, 4


class Features(nn.Module):
    """A fixed random convolutional network."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.layers = nn.Sequential(
                nn.Conv2d(1, 8, 3, stride=2), nn.ReLU(), nn.Conv2d(8, 16, 3, stride=2), nn.ReLU(), nn.Flatten()
            )
            self.last = nn.Linear(16 * 9, 12)

    @torch.no_grad()
    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        return 10 * self.last(self.layers(pictures))


def pictures(num: int, seed: int, classes: int = CLASSES) -> torch.Tensor:
    """Returns pictures ``(N, 1, 16, 16)`` of bright squares, whose class is their quarter, in all shades and sizes."""
    generator = torch.Generator().manual_seed(seed)
    made = torch.full((num, 1, 16, 16), -0.5)
    for index in range(num):
        place, shade, size = torch.rand(3, generator=generator).tolist()
        kind = int(place * classes)
        top, left, side = 8 * (kind // 2), 8 * (kind % 2), 3 + int(size * 5)
        made[index, 0, top : top + side, left : left + side] = shade
    return made + 0.05 * torch.randn(made.shape, generator=generator)


@pytest.fixture(scope="module")
def comparison():
    real = Features()(pictures(1_000, 0))
    moments = Moments.of(real)
    return Comparison(Reference(moments.mean, moments.covariance, real[:NUM], len(real), {}, None, None, None))


def figures(comparison: Comparison, samples: torch.Tensor) -> dict:
    return comparison.figures(Measured(Features()(samples), None, 1))


@pytest.fixture(scope="module")
def good(comparison):
    return figures(comparison, pictures(NUM, 1))


def test_good_samples_are_near(good):
    assert good["frechet"] < 0.1
    assert good["density"] == pytest.approx(1, abs=0.25)
    assert min(good["precision"], good["recall"], good["coverage"]) > 0.85
    low, high = good["intervals"]["kernel"]
    assert low < 0 < high, "no distance is told where there is none"
    assert good["accuracy"] is good["intervals"]["accuracy"] is None


def test_noise_moves_both_distances_at_least_tenfold(comparison, good):
    samples = pictures(NUM, 1)
    noise = torch.randn(samples.shape, generator=torch.Generator().manual_seed(2))
    little, much = (figures(comparison, samples + size * noise) for size in (0.3, 0.6))
    assert little["frechet"] > 10 * good["frechet"]
    assert much["frechet"] > 1.5 * little["frechet"]
    assert little["kernel"] > 10 * good["intervals"]["kernel"][1]
    assert much["kernel"] > 1.5 * little["kernel"]
    assert little["intervals"]["frechet"][0] > good["intervals"]["frechet"][1]


def test_a_missing_class_takes_a_fifth_of_recall_and_of_coverage_at_least(comparison, good):
    """A quarter of the data is never made."""
    some = figures(comparison, _without_last_class(NUM))
    assert some["recall"] < 0.8 * good["recall"]
    assert some["coverage"] < 0.8 * good["coverage"]
    assert some["precision"] > 0.95 * good["precision"], "what is made is as good as before"
    assert some["intervals"]["coverage"][1] < good["intervals"]["coverage"][0]


def _without_last_class(num: int) -> torch.Tensor:
    samples = pictures(2 * num, 1)
    kept = samples[:, 0, 9:11, 9:11].mean((1, 2)) < -0.3
    assert 0.6 < kept.double().mean() < 0.9
    return samples[kept][:num]


def test_repeated_samples_halve_coverage_and_recall_at_least(comparison, good):
    """Forty samples, ten times each: their third neighbours are copies, so that their balls hold nothing else."""
    repeated = figures(comparison, pictures(40, 1).repeat(NUM // 40, 1, 1, 1))
    assert repeated["coverage"] < 0.5 * good["coverage"]
    assert repeated["recall"] < 0.5 * good["recall"]
    assert repeated["precision"] > 0.85 * good["precision"]

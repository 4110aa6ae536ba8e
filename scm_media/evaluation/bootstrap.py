"""Intervals of an evaluation's figures over samples: what other samples of the same model would give, in 95 of 100.

The real data stay the same. Means of the samples' own terms get percentiles of bootstrap resamples (Efron 1979). A
resample holds fewer different samples than there are, which moves the Fréchet and the kernel distance upwards and
recall and coverage downwards: these get a normal interval around the figure of all samples, with the standard deviation
of resamples or, for recall and coverage, of samples that are left out one at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

LEVEL = 0.95
QUANTILE = 1.959964
"""The quantile of a standard normal distribution that leaves 2.5 % above it."""
NUM_MEAN, NUM_DISTANCE = 500, 100
"""Resamples of means, and of distances, each of which takes a covariance or a product with all pairs."""


@lru_cache(maxsize=4)
def draw_counts(num: int, num_resamples: int, seed: int = 0) -> Tensor:
    """Returns how often each of ``num`` samples is in each resample of as many, ``(R, num)`` in float32."""
    generator = torch.Generator().manual_seed(seed)
    drawn = (torch.randint(num, (num,), generator=generator) for _ in range(num_resamples))
    return torch.stack([torch.bincount(indices, minlength=num).float() for indices in drawn])


def mean_interval(terms: Tensor, seed: int = 0) -> list[float]:
    """Returns low and high of the mean of terms ``(N,)``: percentiles of resamples."""
    resampled = draw_counts(len(terms), NUM_MEAN, seed).double() @ terms.double() / len(terms)
    tail = (1 - LEVEL) / 2
    return resampled.quantile(torch.tensor([tail, 1 - tail], dtype=torch.float64)).tolist()


def distance_interval(
    figure: float,
    resample: Callable[[Tensor], Tensor],
    num: int,
    lowest: float = -torch.inf,
    seed: int = 0,
) -> list[float]:
    """Returns low and high of a distance of ``num`` samples: the figure ± 1.96 standard deviations of resamples.

    resample: maps counts ``(R, num)`` to the distances ``(R,)`` of resamples. The interval is one of the figure's
    expectation for as many samples, with the bias that such a number has. It is too wide where the distance is near 0.
    Source: Efron & Tibshirani 1993, "An Introduction to the Bootstrap", chapters 6 and 12 (standard normal intervals).
    """
    return _around(figure, float(resample(draw_counts(num, NUM_DISTANCE, seed)).std()), lowest)


def hit_interval(hits: Tensor) -> list[float]:
    """Returns low and high of the fraction of rows that have a hit, of hits ``(N, M)`` by M samples.

    The standard deviation is the jackknife's: without one sample, the rows are lost that it alone hits. In expectation
    its square is no less than the variance of the fraction by M − 1 samples (Efron & Stein 1981, "The jackknife
    estimate of variance"). It is 0 where every row that is hit is hit more than once.
    """
    num_points, num = hits.shape
    alone = hits[hits.sum(1) == 1]
    lost = alone.sum(0).double() / num_points
    deviation = ((num - 1) / num * (lost - lost.mean()).square().sum()).sqrt()
    return _around(float(hits.any(1).double().mean()), float(deviation), 0.0, 1.0)


def _around(figure: float, deviation: float, lowest: float, highest: float = torch.inf) -> list[float]:
    reach = QUANTILE * deviation
    return [max(figure - reach, lowest), min(figure + reach, highest)]

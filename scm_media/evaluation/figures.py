"""All figures of a set of samples against real data, with their intervals."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property, lru_cache
from typing import Any

import torch
from torch import Tensor

from scm_media.evaluation.bootstrap import distance_interval, hit_interval, mean_interval
from scm_media.evaluation.frechet import resampled_distances, square_root
from scm_media.evaluation.kernel import KernelTerms
from scm_media.evaluation.measured import Measured
from scm_media.evaluation.neighbours import NUM_DENSITY_BALL, NeighbourTerms, RealBalls
from scm_media.evaluation.reference import Reference

NEIGHBOUR_FIGURES = ("precision", "recall", "density", "coverage")
FIGURES = ("frechet", "kernel", *NEIGHBOUR_FIGURES, "accuracy")


class Comparison:
    """Compares sets of samples with one reference, what only depends on which is computed once."""

    def __init__(self, reference: Reference) -> None:
        self.reference = reference
        self._balls = lru_cache(maxsize=2)(lambda num: RealBalls.of(reference.neighbours[:num]))

    def frechet(self, features: Tensor) -> tuple[float, list[float]]:
        """Returns the Fréchet distance of features ``(N, d)``, and its interval."""
        figure, mean, covariance = self.reference.frechet(features), self.reference.mean, self.reference.covariance

        def resample(counts: Tensor) -> Tensor:
            return resampled_distances(features, counts, mean, covariance, self._root)

        return figure, distance_interval(figure, resample, len(features), lowest=0.0)

    def figures(self, measured: Measured) -> dict[str, Any]:
        """Returns the figures by name, None for those that cannot be told, and ``intervals`` of the same names.

        The kernel distance and figures of neighbours are those of as many samples as the reference keeps neighbours, at
        most; five of them or fewer have none. An interval is None where resamples do not vary, as where all samples
        are precise: that few samples show no spread does not make their figure exact.
        """
        found: dict[str, Any] = dict.fromkeys(FIGURES)
        intervals: dict[str, list[float] | None] = dict.fromkeys(FIGURES)
        found["frechet"], intervals["frechet"] = self.frechet(measured.features)
        num = min(len(measured.features), len(self.reference.neighbours))
        if num > NUM_DENSITY_BALL:
            part = measured.features[:num]
            kernel = KernelTerms.of(part, self.reference.neighbours)
            found["kernel"] = kernel.distance()
            intervals["kernel"] = distance_interval(found["kernel"], kernel.resample, num)
            terms = NeighbourTerms.of(self._balls(num), part)
            found |= terms.figures()
            intervals["precision"], intervals["density"] = mean_interval(terms.precise), mean_interval(terms.density)
            intervals["recall"], intervals["coverage"] = hit_interval(terms.recalled), hit_interval(terms.covered)
        if measured.correct is not None:
            found["accuracy"] = float(measured.correct.mean())
            intervals["accuracy"] = mean_interval(measured.correct)
        told = {name: bounds if bounds and bounds[0] < bounds[1] else None for name, bounds in intervals.items()}
        return {**found, "intervals": told}

    @cached_property
    def _root(self) -> Tensor:
        return square_root(self.reference.covariance)


def compare_statistics(
    statistics: Mapping[str, Tensor], real: Mapping[str, Tensor] | None
) -> dict[str, dict[str, float | None]]:
    """Returns the mean of each statistic ``(N,)``, and the distance of its distribution from real data's.

    The distance is Wasserstein's of order 1 over the standard deviation of the real data's values. NaN are left out;
    None where nothing is left, there are no real data, or these all have one value.
    """
    return {
        name: {"mean": mean_of(values), "distance": None if real is None else _distance(values, real[name])}
        for name, values in statistics.items()
    }


def mean_of(values: Tensor) -> float | None:
    """Returns the mean of values ``(N,)`` that are numbers, None where none is."""
    values = values[torch.isfinite(values)].double()
    return float(values.mean()) if len(values) else None


def _distance(values: Tensor, real: Tensor) -> float | None:
    values, real = (each[torch.isfinite(each)].double() for each in (values, real))
    if not len(values) or len(real) < 2 or not real.std() > 0:
        return None
    return float(wasserstein_distance(values, real) / real.std())


def wasserstein_distance(a: Tensor, b: Tensor) -> Tensor:
    """Returns the Wasserstein distance of order 1 of numbers ``(N,)`` and ``(M,)``: ∫ |F_a(x) − F_b(x)| dx.

    Source: Vallender 1974, "Calculation of the Wasserstein distance between probability distributions on the line".
    """
    a, b = a.double().sort().values, b.double().sort().values
    places = torch.cat([a, b]).sort().values
    below = [torch.searchsorted(each, places[:-1], right=True) / len(each) for each in (a, b)]
    return ((below[0] - below[1]).abs() * places.diff()).sum()


def kendall_tau(a: list[float], b: list[float]) -> float | None:
    """Returns Kendall's τ_b between two lists of the same length: 1 where both rank alike, −1 where they oppose.

    None for fewer than two entries, and where a list has one value alone. Source: Kendall 1945, "The treatment of ties
    in ranking problems".
    """
    x, y = torch.tensor(a, dtype=torch.float64), torch.tensor(b, dtype=torch.float64)
    signs = [torch.sign(each[:, None] - each[None]) for each in (x, y)]
    scale = (signs[0].square().sum() * signs[1].square().sum()).sqrt()
    return float((signs[0] * signs[1]).sum() / scale) if len(a) > 1 and scale > 0 else None

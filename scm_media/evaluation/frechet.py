"""The Fréchet distance between two sets of features, each modelled as a Gaussian."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


class Moments:
    """Accumulates mean and covariance of features that come in batches, in float64."""

    def __init__(self, dimension: int) -> None:
        self.count = 0
        self.mean = torch.zeros(dimension, dtype=torch.float64)
        self._scatter = torch.zeros(dimension, dimension, dtype=torch.float64)

    @classmethod
    def of(cls, features: Tensor) -> Moments:
        """Returns the moments of features ``(N, d)``."""
        moments = cls(features.shape[1])
        moments.update(features)
        return moments

    def update(self, features: Tensor) -> None:
        """Adds features ``(B, d)`` (Chan, Golub & LeVeque 1979, equations 2.1)."""
        features = features.detach().to("cpu", torch.float64)
        num = len(features)
        mean = features.mean(0)
        centred, shift = features - mean, mean - self.mean
        self._scatter += centred.T @ centred + torch.outer(shift, shift) * (self.count * num / (self.count + num))
        self.mean = self.mean + shift * (num / (self.count + num))
        self.count += num

    def state_dict(self) -> dict[str, Tensor]:
        """Returns count, mean ``(d,)`` and the sum of squares about it ``(d, d)``."""
        return {"count": torch.tensor(self.count), "mean": self.mean, "scatter": self._scatter}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Takes over what ``state_dict`` returned."""
        self.count, self.mean, self._scatter = int(state["count"]), state["mean"], state["scatter"].clone()

    @property
    def covariance(self) -> Tensor:
        """Returns ``(d, d)`` with N − 1 in the denominator; raises ValueError for fewer than two samples."""
        if self.count < 2:
            raise ValueError(f"a covariance needs at least 2 samples, got {self.count}")
        return self._scatter / (self.count - 1)


def too_few(dimension: int, *counts: int) -> bool:
    """Returns whether a set of features has no more members than its features have dimensions.

    Its covariance is then singular, and a Fréchet distance over it says little.
    """
    return min(counts) <= dimension


def frechet_distance(mean_a: Tensor, covariance_a: Tensor, mean_b: Tensor, covariance_b: Tensor) -> float:
    """Returns |μ_a − μ_b|² + tr(A + B − 2 (A^½ B A^½)^½) for means ``(d,)`` and covariances ``(d, d)``.

    The roots are taken in float64 by symmetric eigen-decomposition, so that rank-deficient covariances (fewer samples
    than dimensions) need no jitter.
    Source: Dowson & Landau 1982, equation 4; Heusel et al. 2017 (arXiv 1706.08500), equation 6.
    """
    mean_a, covariance_a, mean_b, covariance_b = (
        tensor.detach().to("cpu", torch.float64) for tensor in (mean_a, covariance_a, mean_b, covariance_b)
    )
    root = square_root(covariance_a)
    inner = root @ covariance_b @ root
    trace_root = torch.linalg.eigvalsh((inner + inner.T) / 2).clamp(min=0).sqrt().sum()
    distance = (mean_a - mean_b).square().sum() + covariance_a.trace() + covariance_b.trace() - 2 * trace_root
    return max(float(distance), 0.0)


def square_root(covariance: Tensor) -> Tensor:
    """Returns the symmetric root ``(d, d)`` of a covariance ``(d, d)``, in float64; negative eigenvalues become 0."""
    values, vectors = torch.linalg.eigh(covariance.detach().to("cpu", torch.float64))
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.T


def resampled_distances(features: Tensor, counts: Tensor, mean: Tensor, covariance: Tensor, root: Tensor) -> Tensor:
    """Returns the Fréchet distances ``(R,)`` to a Gaussian of resamples of features ``(N, d)``, in float64.

    counts ``(R, N)``: how often a resample holds each sample, N in all. root: ``square_root(covariance)``.
    """
    mean, covariance = mean.double(), covariance.double()
    features = features.detach().to("cpu", torch.float64) - mean  # near the origin, where differences are exact
    num = len(features)
    shifts, inners, traces = [], [], []
    for weights in counts.double():
        drawn = weights > 0
        part = features[drawn] * weights[drawn, None].sqrt()
        shift = weights @ features / num
        scatter = (part.T @ part - num * torch.outer(shift, shift)) / (num - 1)
        shifts.append(shift.square().sum())
        traces.append(scatter.trace() + covariance.trace())
        inner = root @ scatter @ root
        inners.append((inner + inner.T) / 2)
    trace_roots = torch.linalg.eigvalsh(torch.stack(inners)).clamp(min=0).sqrt().sum(1)
    return torch.stack(shifts) + torch.stack(traces) - 2 * trace_roots

"""The kernel distance (KID): an unbiased squared maximum mean discrepancy between two sets of features."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

CHUNK = 1024


def kernel_distance(a: Tensor, b: Tensor) -> float:
    """Returns the unbiased MMD² of features ``(N, d)`` and ``(M, d)`` under k(x, y) = (x·y / d + 1)³, over all pairs.

    Its expectation is 0 for equal distributions whatever N and M are, so it may come out negative. Raises ValueError
    for fewer than two samples. Source: Bińkowski et al. 2018 (arXiv 1801.01401), section 4; Gretton et al. 2012, eq. 3.
    """
    if min(len(a), len(b)) < 2:
        raise ValueError(f"a kernel distance needs at least 2 samples on each side, got {len(a)} and {len(b)}")
    a, b = a.double(), b.double()
    num_a, num_b = len(a), len(b)
    within_a = (_kernel_sum(a, a) - _diagonal_sum(a)) / (num_a * (num_a - 1))
    within_b = (_kernel_sum(b, b) - _diagonal_sum(b)) / (num_b * (num_b - 1))
    return within_a + within_b - 2 * _kernel_sum(a, b) / (num_a * num_b)


@dataclass(frozen=True)
class KernelTerms:
    """Holds the sums that the kernel distance of N samples is made of, so that the samples can be resampled.

    pairs ``(N, N)``: the kernel of each pair, with a diagonal of 0. across ``(N,)``: the mean kernel of each sample
    with the reference. within: the mean kernel of pairs of the reference.
    """

    pairs: Tensor
    across: Tensor
    within: float

    @classmethod
    def of(cls, a: Tensor, b: Tensor) -> KernelTerms:
        """Returns the terms of features ``(N, d)`` against a reference's ``(M, d)``; N² numbers are held.

        Raises ValueError for fewer than two samples.
        """
        if min(len(a), len(b)) < 2:
            raise ValueError(f"a kernel distance needs at least 2 samples on each side, got {len(a)} and {len(b)}")
        a, b = a.double(), b.double()
        pairs = (a @ a.T / a.shape[1] + 1).pow(3)
        pairs.fill_diagonal_(0)
        across = torch.cat([((part @ b.T) / a.shape[1] + 1).pow(3).mean(1) for part in torch.split(a, CHUNK)])
        return cls(pairs, across, (_kernel_sum(b, b) - _diagonal_sum(b)) / (len(b) * (len(b) - 1)))

    def distance(self) -> float:
        """Returns what ``kernel_distance`` does."""
        return float(self.resample(torch.ones(1, len(self.across)))[0])

    def resample(self, counts: Tensor) -> Tensor:
        """Returns the distances ``(R,)`` of resamples that hold each sample as often as counts ``(R, N)`` say.

        Pairs of a sample with its own copies are left out: in the cubic kernel they would move the distance upwards.
        """
        counts = counts.double()
        num = counts.sum(1)
        pairs = (counts @ self.pairs * counts).sum(1) / (num.square() - counts.square().sum(1))
        return pairs + self.within - 2 * counts @ self.across / num


def _kernel_sum(a: Tensor, b: Tensor) -> float:
    return sum(float(((part @ b.T) / a.shape[1] + 1).pow(3).sum()) for part in torch.split(a, CHUNK))


def _diagonal_sum(a: Tensor) -> float:
    return float((a.square().sum(1) / a.shape[1] + 1).pow(3).sum())

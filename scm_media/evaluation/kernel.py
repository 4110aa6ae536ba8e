"""The kernel distance (KID): an unbiased squared maximum mean discrepancy between two sets of features."""

from __future__ import annotations

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


def _kernel_sum(a: Tensor, b: Tensor) -> float:
    return sum(float(((part @ b.T) / a.shape[1] + 1).pow(3).sum()) for part in torch.split(a, CHUNK))


def _diagonal_sum(a: Tensor) -> float:
    return float((a.square().sum(1) / a.shape[1] + 1).pow(3).sum())

"""Precision and recall of samples, by nearest neighbours in feature space."""

from __future__ import annotations

import torch
from torch import Tensor

CHUNK = 1024


def precision_recall(real: Tensor, generated: Tensor, num_neighbours: int = 3) -> tuple[float, float]:
    """Returns the fraction of generated features within the real manifold, and of real ones within the generated one.

    Features are ``(N, d)`` and ``(M, d)``. A manifold is the union of balls around its points, each of which reaches to
    the ``num_neighbours``-th nearest other point. Only figures of equal N and M compare. Raises ValueError for too few.
    Source: Kynkäänniemi et al. 2019 (arXiv 1904.06991), equations 1 and 2.
    """
    if min(len(real), len(generated)) <= num_neighbours:
        raise ValueError(
            f"precision and recall need more than {num_neighbours} samples on each side, "
            f"got {len(real)} real and {len(generated)} generated"
        )
    real, generated = real.float(), generated.float()
    return _fraction_inside(generated, real, num_neighbours), _fraction_inside(real, generated, num_neighbours)


def _fraction_inside(points: Tensor, manifold: Tensor, num_neighbours: int) -> float:
    num = num_neighbours + 1  # the nearest point of all is the point itself
    radii = torch.cat([distances(part, manifold).kthvalue(num, dim=1).values for part in manifold.split(CHUNK)])
    inside = [(distances(part, manifold) <= radii).any(1) for part in points.split(CHUNK)]
    return float(torch.cat(inside).float().mean())


def distances(a: Tensor, b: Tensor) -> Tensor:
    """Returns the Euclidean distances ``(N, M)`` of points ``(N, d)`` and ``(M, d)``, exact near zero."""
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")

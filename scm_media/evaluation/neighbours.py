"""Precision and recall of samples, from nearest neighbours in feature space."""

from __future__ import annotations

import torch
from torch import Tensor

CHUNK = 1024


def precision_recall(real: Tensor, generated: Tensor, num_neighbours: int = 3) -> tuple[float, float]:
    """Share of generated features within the real manifold, and of real ones within the generated manifold.

    Features are ``(N, d)`` and ``(M, d)``; a manifold is the union of the balls around its points that reach to the
    ``num_neighbours``-th nearest other point. Compare only figures of equal N and M. ValueError for too few points.
    Source: Kynkäänniemi et al. 2019 (arXiv 1904.06991), equations 1 and 2.
    """
    if min(len(real), len(generated)) <= num_neighbours:
        raise ValueError(
            f"precision and recall need more than {num_neighbours} samples on each side, "
            f"got {len(real)} real and {len(generated)} generated"
        )
    real, generated = real.float(), generated.float()
    return _share_inside(generated, real, num_neighbours), _share_inside(real, generated, num_neighbours)


def _share_inside(points: Tensor, manifold: Tensor, num_neighbours: int) -> float:
    radii = torch.cat([
        # the nearest point of all is the point itself
        distances(part, manifold).kthvalue(num_neighbours + 1, dim=1).values
        for part in torch.split(manifold, CHUNK)
    ])  # fmt: skip
    inside = [(distances(part, manifold) <= radii).any(1) for part in torch.split(points, CHUNK)]
    return float(torch.cat(inside).float().mean())


def distances(a: Tensor, b: Tensor) -> Tensor:
    """Euclidean distances ``(N, M)`` of points ``(N, d)`` and ``(M, d)``, exact near zero."""
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")

"""Precision, recall, density and coverage of samples, by nearest neighbours in feature space."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

CHUNK = 1024
NUM_BALL, NUM_DENSITY_BALL = 3, 5
"""Neighbours that a ball reaches to: those of precision and recall, and those of density and coverage."""


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
    radii = _radii(manifold, num_neighbours)[0]
    inside = [(distances(part, manifold) <= radii).any(1) for part in points.split(CHUNK)]
    return float(torch.cat(inside).float().mean())


@dataclass(frozen=True)
class RealBalls:
    """Points of real data ``(N, d)`` with the radii ``(N,)`` of their balls, which all rows are compared with.

    radii reach to the third nearest other point, density_radii to the fifth.
    """

    points: Tensor
    radii: Tensor
    density_radii: Tensor

    @classmethod
    def of(cls, points: Tensor) -> RealBalls:
        """Returns the balls of real features ``(N, d)``; raises ValueError for five or fewer."""
        if len(points) <= NUM_DENSITY_BALL:
            raise ValueError(f"density and coverage need more than {NUM_DENSITY_BALL} real samples, got {len(points)}")
        return cls(points.float(), *_radii(points.float(), NUM_BALL, NUM_DENSITY_BALL))


@dataclass(frozen=True)
class NeighbourTerms:
    """Holds the terms whose means are precision, recall, density and coverage, for N real and M generated samples.

    precise ``(M,)``: 1 where a generated sample lies in a real ball. density ``(M,)``: the number of real balls (of
    five neighbours) that it lies in, over five. recalled ``(N, M)``: true where a real sample lies in a generated
    sample's ball. covered ``(N, M)``: true where a generated sample lies in a real sample's ball of five neighbours.
    """

    precise: Tensor
    density: Tensor
    recalled: Tensor
    covered: Tensor

    @classmethod
    def of(cls, real: RealBalls, generated: Tensor) -> NeighbourTerms:
        """Returns the terms of generated features ``(M, d)``; raises ValueError for three or fewer.

        Density and coverage are those of Naeem et al. 2020 (arXiv 2002.09797, section 3): the mean over generated
        samples of the number of balls they lie in over k, and the fraction of real balls that hold one. Precision and
        recall are those of ``precision_recall``.
        """
        if len(generated) <= NUM_BALL:
            raise ValueError(f"recall needs more than {NUM_BALL} generated samples, got {len(generated)}")
        generated = generated.float()
        own_radii = _radii(generated, NUM_BALL)[0]
        across = torch.cat([distances(part, generated) for part in real.points.split(CHUNK)])
        covered = across <= real.density_radii[:, None]
        return cls(
            precise=(across <= real.radii[:, None]).any(0).double(),
            density=covered.double().sum(0) / NUM_DENSITY_BALL,
            recalled=across <= own_radii,
            covered=covered,
        )

    def figures(self) -> dict[str, float]:
        """Returns precision, recall, density and coverage by name."""
        return {
            "precision": float(self.precise.mean()),
            "recall": float(self.recalled.any(1).double().mean()),
            "density": float(self.density.mean()),
            "coverage": float(self.covered.any(1).double().mean()),
        }


def _radii(manifold: Tensor, *num_neighbours: int) -> tuple[Tensor, ...]:
    """Returns the distances ``(N,)`` of each point to its neighbours with these numbers, the nearest other one is 1."""
    ordered = torch.cat(
        [
            distances(part, manifold).topk(max(num_neighbours) + 1, largest=False).values
            for part in manifold.split(CHUNK)
        ]
    )
    return tuple(ordered[:, num] for num in num_neighbours)  # the nearest point of all is the point itself


def distances(a: Tensor, b: Tensor) -> Tensor:
    """Returns the Euclidean distances ``(N, M)`` of points ``(N, d)`` and ``(M, d)``, exact near zero."""
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")

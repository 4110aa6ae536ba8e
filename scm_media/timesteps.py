"""Distributions of training times."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from scm_media import draws
from scm_media.parts import part


class TimestepDistribution(Protocol):
    """A distribution of training times."""

    def sample(self, num: int, sigma_data: float, generator: torch.Generator | None = None) -> Tensor:
        """Returns times ``(num,)`` in (0, π/2), float32."""
        ...


@part("timesteps")
@dataclass(frozen=True)
class LogNormalTimesteps:
    """The distribution of t = atan(e^τ / sigma_data) for τ ~ N(mean, std²) (sCM, section 3.2 and appendix B).

    stratified: spreads the quantiles of a batch evenly, (k + U) / num in a random order. Each time has the same
    distribution, and the batch has less variance. Raises ValueError for a std that is not positive.
    """

    mean: float
    std: float
    stratified: bool = False

    def __post_init__(self) -> None:
        if not self.std > 0:
            raise ValueError(f"std of the timestep distribution must be positive, got {self.std}")

    @classmethod
    def for_sigma_data(cls, mean: float, std: float, sigma_data: float) -> LogNormalTimesteps:
        """Returns the distribution for data of any ``sigma_data`` whose times are those of this one at 0.5."""
        return cls(mean + math.log(sigma_data / 0.5), std)

    def sample(self, num: int, sigma_data: float, generator: torch.Generator | None = None) -> Tensor:
        """Returns times ``(num,)`` in (0, π/2), float32."""
        if self.stratified:
            order, total = draws.places(num, generator)
            quantiles = (order + draws.rand(num, generator=generator)) / total
            normal = torch.special.ndtri(quantiles.clamp(1e-6, 1 - 1e-6))
        else:
            normal = draws.randn(num, generator=generator)
        return torch.atan(torch.exp(normal * self.std + self.mean) / sigma_data)


@part("timesteps")
@dataclass(frozen=True)
class UniformTimesteps:
    """The uniform distribution of t between low and high, in radians."""

    low: float = 0.0
    high: float = math.pi / 2

    def sample(self, num: int, sigma_data: float, generator: torch.Generator | None = None) -> Tensor:
        """Returns times ``(num,)``, float32."""
        return draws.rand(num, generator=generator) * (self.high - self.low) + self.low

"""The path between data and noise: x_t = cos t · x0 + sin t · z, t in [0, π/2].

Source: Lu & Song 2024, "Simplifying, Stabilizing and Scaling Continuous-Time Consistency Models"
(arXiv 2410.11081), section 3, called sCM in this package.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from scm_media.parts import part


def broadcast_time(t: Tensor, like: Tensor) -> Tensor:
    """t ``(B,)`` as ``(B, 1, ..., 1)``, so that it multiplies tensors of the rank of ``like``."""
    return t.reshape(-1, *([1] * (like.ndim - 1)))


@part("flow")
@dataclass(frozen=True)
class TrigFlow:
    """The trigonometric flow for data of deviation ``sigma_data``; every method takes any rank ``(B, c, *s)``."""

    sigma_data: float = 0.5

    def __post_init__(self) -> None:
        if not self.sigma_data > 0:
            raise ValueError(f"sigma_data must be positive, got {self.sigma_data}")

    def interpolate(self, x0: Tensor, z: Tensor, t: Tensor) -> Tensor:
        """x_t = cos t · x0 + sin t · z for z ~ N(0, sigma_data²) (sCM, section 3.1)."""
        t = broadcast_time(t, x0)
        return torch.cos(t) * x0 + torch.sin(t) * z

    def velocity(self, x0: Tensor, z: Tensor, t: Tensor) -> Tensor:
        """v_t = dx_t/dt = cos t · z − sin t · x0 (sCM, section 3.1)."""
        t = broadcast_time(t, x0)
        return torch.cos(t) * z - torch.sin(t) * x0

    def denoise(self, x_t: Tensor, F: Tensor, t: Tensor) -> Tensor:
        """x0 = cos t · x_t − sin t · sigma_data · F: also the consistency function (sCM, equation 6)."""
        t = broadcast_time(t, x_t)
        return torch.cos(t) * x_t - torch.sin(t) * self.sigma_data * F

    def prior(self, shape: Sequence[int], generator: torch.Generator | None = None) -> Tensor:
        """Noise z ~ N(0, sigma_data²) of a shape: where every trajectory starts, at t = π/2."""
        return torch.randn(tuple(shape), generator=generator) * self.sigma_data

    def time_from_sigma(self, sigma: float) -> float:
        """t = atan(sigma / sigma_data), in radians, for a noise level of x0 + sigma · n."""
        return math.atan(sigma / self.sigma_data)

    def sigma_from_time(self, t: float) -> float:
        """sigma = sigma_data · tan t, the noise level that a time stands for."""
        return self.sigma_data * math.tan(t)

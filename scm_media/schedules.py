"""Variance-preserving noise schedules, which map noise levels to the times that a network was trained with.

A variance-preserving (VP) path is y = cos φ · x0 + sin φ · n with n ~ N(0, 1). The angle φ in [0, π/2] names the noise
level, whatever time the schedule gives it: alpha(s) = cos φ and sigma(s) = sin φ. Angles stay finite at both ends,
where the logarithm of the signal-to-noise ratio does not.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Schedule(Protocol):
    """A VP schedule; ``angles`` holds the smallest and the largest angle that it reaches, in radians."""

    @property
    def angles(self) -> tuple[float, float]: ...

    def time(self, angle: Tensor) -> Tensor:
        """Returns the network's time ``(B,)`` at angles ``(B,)``, with its derivative in forward mode."""
        ...


@dataclass(frozen=True)
class CosineSchedule:
    """The schedule alpha(s) = cos(π s / 2), sigma(s) = sin(π s / 2) for s in [0, 1], with the angle φ = π s / 2."""

    @property
    def angles(self) -> tuple[float, float]:
        """Returns (0, π/2)."""
        return 0.0, math.pi / 2

    def time(self, angle: Tensor) -> Tensor:
        """Returns s = 2 φ / π ``(B,)``."""
        return angle * (2 / math.pi)


@dataclass(frozen=True)
class LinearSchedule:
    """The VP-SDE with β(s) = beta_min + s (beta_max − beta_min) for s in [0, 1].

    log alpha(s) = −s² (beta_max − beta_min) / 4 − s beta_min / 2 (Song et al. 2021, arXiv 2011.13456, equation 33).
    """

    beta_min: float = 0.1
    beta_max: float = 20.0

    def __post_init__(self) -> None:
        if not 0 < self.beta_min < self.beta_max:
            raise ValueError(f"expected 0 < beta_min < beta_max, got {self.beta_min} and {self.beta_max}")

    @property
    def angles(self) -> tuple[float, float]:
        """Returns (0, arccos alpha(1))."""
        return 0.0, math.acos(math.exp(-(self.beta_min + self.beta_max) / 4))

    def time(self, angle: Tensor) -> Tensor:
        """Returns the s ``(B,)`` in [0, 1] that solves s² (beta_max − beta_min) / 4 + s beta_min / 2 = −log cos φ."""
        wanted = -torch.log1p(-torch.sin(angle).square()) / 2  # −log cos φ, without cancellation at small angles
        root = torch.sqrt(self.beta_min**2 / 4 + (self.beta_max - self.beta_min) * wanted)
        return 2 * wanted / (self.beta_min / 2 + root)


class ContinuousSchedule:
    """A schedule given by functions alpha(s) and sigma(s) of tensors, over s from ``start`` to ``end``.

    The time of an angle is found by bisection, its derivative by the implicit function theorem. Raises ValueError
    unless alpha² + sigma² = 1 and sigma / alpha rises from start to end.
    """

    def __init__(
        self,
        alpha: Callable[[Tensor], Tensor],
        sigma: Callable[[Tensor], Tensor],
        start: float = 0.0,
        end: float = 1.0,
    ) -> None:
        self.alpha, self.sigma, self.start, self.end = alpha, sigma, start, end
        s = torch.linspace(start, end, 257, dtype=torch.float64)
        squares = alpha(s).square() + sigma(s).square()
        if not bool(((squares - 1).abs() < 1e-4).all()):
            worst = squares[(squares - 1).abs().argmax()].item()
            raise ValueError(
                f"a variance-preserving schedule has alpha² + sigma² = 1, got {worst:.4g}; a path (1 − s) x0 + s n is "
                "that of RectifiedFlow, x0 + sigma n that of EDM"
            )
        angles = self._angle(s)
        if not bool((angles.diff() > 0).all()):
            raise ValueError(
                f"sigma(s) / alpha(s) must rise from s = {start} to {end}: does s = {end} stand for noise?"
            )
        self.angles = (angles[0].item(), angles[-1].item())

    def _angle(self, s: Tensor) -> Tensor:
        return torch.atan2(self.sigma(s), self.alpha(s))

    def time(self, angle: Tensor) -> Tensor:
        """Returns the s ``(B,)`` whose angle is given, between ``start`` and ``end``."""
        wanted = angle.detach()
        low, high = torch.full_like(wanted, self.start), torch.full_like(wanted, self.end)
        for _ in range(54 if angle.dtype == torch.float64 else 26):
            middle = (low + high) / 2
            below = self._angle(middle) < wanted
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        s = (low + high) / 2
        derivative = torch.func.jvp(self._angle, (s,), (torch.ones_like(s),))[1].detach()
        # The difference is zero up to rounding: it carries the derivative ds/dφ = 1 / (dφ/ds).
        return s + (angle - wanted) / derivative


class DiscreteSchedule:
    """A schedule of T integer timesteps with ``alphas_cumprod`` ``(T,)``, as in DDPM and diffusers.

    Timestep i has alpha² = alphas_cumprod[i]. Between two timesteps the time is interpolated linearly in the angle. A
    last entry of 0 (zero terminal signal-to-noise ratio) is allowed. Raises ValueError for values that do not fall
    strictly within [0, 1).
    """

    def __init__(self, alphas_cumprod: Tensor) -> None:
        products = torch.as_tensor(alphas_cumprod).detach().to("cpu", torch.float64)
        if products.ndim != 1 or len(products) < 2:
            raise ValueError(f"alphas_cumprod must be (T,) for T of at least 2, got {tuple(products.shape)}")
        if not bool((products.diff() < 0).all()) or not (products[0] < 1 and products[-1] >= 0):
            raise ValueError(
                "alphas_cumprod must fall strictly from below 1 to at least 0, as a scheduler's alphas_cumprod does; "
                f"got {products[0].item():.4g} to {products[-1].item():.4g}"
            )
        self.levels = torch.atan2(torch.sqrt(1 - products), torch.sqrt(products))
        self.angles = (self.levels[0].item(), self.levels[-1].item())

    def time(self, angle: Tensor) -> Tensor:
        """Returns timesteps ``(B,)`` from 0 to T − 1, which need not be integers."""
        levels = self.levels.to(angle)
        after = torch.searchsorted(levels, angle.detach().contiguous()).clamp(1, len(levels) - 1)
        low, high = levels[after - 1], levels[after]
        return after - 1 + (angle - low) / (high - low)

"""Data whose flow is known in closed form, in any shape: what the core's numbers are held against.

An oracle is a backbone, ``oracle(u, t, cond)`` is the exact F, and its ``consistency`` is the backbone whose denoised
x0 is the end of the trajectory. Both carry a ``DualTensor``.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from scm_media.conditioning import Conditioning
from scm_media.nn.dual import TensorLike, jvp_op
from scm_media.nn.embedding import target_time
from scm_media.trigflow import TrigFlow, broadcast_time

SHAPES = [(2, 5), (2, 3, 4), (2, 2, 3, 4)]
"""(c, *s) of the latents every oracle check runs on: one, two and three axes."""


def noise_of(x: Tensor):
    """A sampler's ``noise`` that starts at x and has nothing to renoise with."""

    def noise(i: int) -> Tensor:
        assert i == 0, "the sampler asked for fresh noise"
        return x

    return noise


class ConsistencyOracle:
    """F with cos t · x − sin t · sigma_data · F = the data end of the oracle's trajectory through (x, t)."""

    def __init__(self, oracle: Gaussian | Mixture) -> None:
        self.oracle = oracle

    def __call__(self, u: TensorLike, t: TensorLike, cond: Conditioning) -> TensorLike:
        """F ``(B, c, *s)``."""
        return jvp_op(self._evaluate, u, t)

    def _evaluate(self, u: Tensor, t: Tensor) -> Tensor:
        sigma = self.oracle.flow.sigma_data
        end = self.oracle.trajectory(u * sigma, t, torch.zeros_like(t))
        t = broadcast_time(t, u)
        return (torch.cos(t) * u - end / sigma) / torch.sin(t)


class FlowMapOracle:
    """F with cos Δ · x − sin Δ · sigma_data · F = where (x, t) is at ``cond.target``; Δ = t − s."""

    def __init__(self, oracle: Gaussian | Mixture) -> None:
        self.oracle = oracle

    def __call__(self, u: TensorLike, t: TensorLike, cond: Conditioning) -> TensorLike:
        """F ``(B, c, *s)``."""
        return jvp_op(self._evaluate, u, t, target_time(cond, t))

    def _evaluate(self, u: Tensor, t: Tensor, s: Tensor) -> Tensor:
        sigma = self.oracle.flow.sigma_data
        gap = broadcast_time(t - s, u)
        near = gap.abs() < 1e-12
        end = self.oracle.trajectory(u * sigma, t, s)
        F = (torch.cos(gap) * u - end / sigma) / torch.where(near, 1.0, torch.sin(gap))
        return torch.where(near, self.oracle._evaluate(u, t), F)


class Gaussian:
    """Independent Gaussian elements with means and deviations ``(c, *s)``."""

    def __init__(self, mean: Tensor, deviation: Tensor, flow: TrigFlow) -> None:
        self.mean, self.deviation, self.flow = mean, deviation, flow
        self.consistency = ConsistencyOracle(self)

    @classmethod
    def random(cls, shape: Sequence[int], dtype: torch.dtype = torch.float64, seed: int = 0) -> Gaussian:
        """Means of about ±0.3 and deviations of 0.1 to 0.8 about sigma_data 0.5, drawn once."""
        generator = torch.Generator().manual_seed(seed)
        mean = 0.3 * torch.randn(*shape, generator=generator, dtype=torch.float64)
        deviation = 0.1 + 0.7 * torch.rand(*shape, generator=generator, dtype=torch.float64)
        return cls(mean.to(dtype), deviation.to(dtype), TrigFlow(0.5))

    def sample(self, num: int, generator: torch.Generator) -> Tensor:
        """x0 ``(num, c, *s)``."""
        draws = torch.randn(num, *self.mean.shape, generator=generator, dtype=self.mean.dtype)
        return self.mean + self.deviation * draws

    def variance(self, t: Tensor) -> Tensor:
        """V = cos² t · deviation² + sin² t · sigma_data², for t that broadcasts."""
        return torch.cos(t) ** 2 * self.deviation**2 + torch.sin(t) ** 2 * self.flow.sigma_data**2

    def __call__(self, u: TensorLike, t: TensorLike, cond: Conditioning) -> TensorLike:
        """F = (dx/dt) / sigma_data with dx/dt = −sin t · mean + V' / (2 V) · (x − cos t · mean)."""
        return jvp_op(self._evaluate, u, t)

    def _evaluate(self, u: Tensor, t: Tensor) -> Tensor:
        t = broadcast_time(t, u)
        y = u * self.flow.sigma_data - torch.cos(t) * self.mean
        return (-torch.sin(t) * self.mean + self._rate(t) * y) / self.flow.sigma_data

    def _rate(self, t: Tensor) -> Tensor:
        gap = self.flow.sigma_data**2 - self.deviation**2
        return torch.sin(t) * torch.cos(t) * gap / self.variance(t)

    def slope(self, x: Tensor, t: Tensor) -> Tensor:
        """dF/dt along the trajectory, x'' / sigma_data = (−cos t · mean + (V''/2V − (V'/2V)²) y) / sigma_data."""
        t = broadcast_time(t, x)
        y = x - torch.cos(t) * self.mean
        gap = self.flow.sigma_data**2 - self.deviation**2
        bend = torch.cos(2 * t) * gap / self.variance(t) - self._rate(t) ** 2
        return (-torch.cos(t) * self.mean + bend * y) / self.flow.sigma_data

    def trajectory(self, x: Tensor, t: Tensor, end: Tensor) -> Tensor:
        """Returns the point at time end ``(B,)`` of the trajectory that is at x at time t ``(B,)``."""
        t, end = broadcast_time(t, x), broadcast_time(end, x)
        scale = torch.sqrt(self.variance(end) / self.variance(t))
        return torch.cos(end) * self.mean + scale * (x - torch.cos(t) * self.mean)


class Mixture:
    """A latent whose first element has two modes and whose other elements are Gaussian; float64."""

    def __init__(self, shape: Sequence[int], modes: tuple[float, float] = (-0.35, 0.45), width: float = 0.2) -> None:
        self.flow = TrigFlow(0.5)
        self.weights = torch.tensor([0.4, 0.6], dtype=torch.float64)
        self.rest = Gaussian.random(shape)
        self.parts = [self._part(mode, width) for mode in modes]
        self.consistency = ConsistencyOracle(self)

    def _part(self, mode: float, width: float) -> Gaussian:
        mean, deviation = self.rest.mean.clone(), self.rest.deviation.clone()
        mean.view(-1)[0], deviation.view(-1)[0] = mode, width
        return Gaussian(mean, deviation, self.flow)

    def sample(self, num: int, generator: torch.Generator) -> Tensor:
        """x0 ``(num, c, *s)``."""
        first, second = (part.sample(num, generator) for part in self.parts)
        choice = torch.rand(num, generator=generator, dtype=torch.float64) < self.weights[0]
        return torch.where(broadcast_time(choice, first), first, second)

    def __call__(self, u: TensorLike, t: TensorLike, cond: Conditioning) -> TensorLike:
        """The parts' F weighted by how likely each part made x_t."""
        return jvp_op(self._evaluate, u, t)

    def _evaluate(self, u: Tensor, t: Tensor) -> Tensor:
        parts = torch.stack([part._evaluate(u, t) for part in self.parts])
        mean, variance = self._moments(t)
        x = u.flatten(1)[:, 0] * self.flow.sigma_data
        log_density = -((x - mean) ** 2) / (2 * variance) - torch.log(variance) / 2
        fractions = torch.softmax(torch.log(self.weights)[:, None] + log_density, dim=0)
        return sum(broadcast_time(fraction, u) * part for fraction, part in zip(fractions, parts, strict=True))

    def _moments(self, t: Tensor) -> tuple[Tensor, Tensor]:
        means = torch.stack([torch.cos(t) * part.mean.flatten()[0] for part in self.parts])
        spread = [part.deviation.flatten()[0] for part in self.parts]
        variances = torch.stack([(torch.cos(t) * s) ** 2 + (torch.sin(t) * self.flow.sigma_data) ** 2 for s in spread])
        return means, variances

    def _cdf(self, x: Tensor, t: Tensor) -> Tensor:
        mean, variance = self._moments(t)
        return (self.weights[:, None] * torch.special.ndtr((x - mean) / torch.sqrt(variance))).sum(0)

    def trajectory(self, x: Tensor, t: Tensor, end: Tensor) -> Tensor:
        """Returns the point at time end: CDF_end(x_end) = CDF_t(x_t) for the first element, by bisection."""
        wanted = self._cdf(x.flatten(1)[:, 0], t)
        low, high = torch.full_like(wanted, -8.0), torch.full_like(wanted, 8.0)
        for _ in range(60):
            middle = (low + high) / 2
            below = self._cdf(middle, end) < wanted
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        ends = self.rest.trajectory(x, t, end).flatten(1)
        return torch.cat([(low + high)[:, None] / 2, ends[:, 1:]], dim=1).reshape(x.shape)

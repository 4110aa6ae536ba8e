"""Samplers: free functions from a backbone and noise to x0, and the times they step through.

Every sampler takes ``noise(i)``, which gives noise ``(B, c, *s)`` of deviation sigma_data: ``noise(0)`` starts the
trajectory at ``times[0]``, later ones renoise. The latents keep the dtype of the noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from scm_media.interfaces import Backbone, Conditioning
from scm_media.trigflow import TrigFlow

Noise = Callable[[int], Tensor]
Constraint = Callable[[Tensor, int], Tensor]


class Counted(nn.Module):
    """A backbone that counts: ``evaluations`` is how often the network was called for one clip."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone
        self.evaluations = 0

    def forward(self, u: Tensor, t: Tensor, cond: Conditioning) -> Tensor:
        """F(u, t) ``(B, c, *s)`` of the backbone, one evaluation later."""
        self.evaluations += 1
        return self.backbone(u, t, cond)


def check_times(times: Sequence[float]) -> None:
    """Raises ValueError unless the times, in radians, descend strictly within (0, π/2]."""
    if not times:
        raise ValueError("times is empty: give at least one time in (0, π/2], the first near π/2")
    for time in times:
        if not 0 < time <= math.pi / 2:
            raise ValueError(f"times must lie in (0, π/2 = {math.pi / 2:.4f}] radians, got {time}")
    for earlier, later in pairwise(times):
        if not later < earlier:
            raise ValueError(f"times must descend, got {earlier} followed by {later}: order them from noise to data")


def consistency_times(
    num_steps: int, flow: TrigFlow, sigma_max: float = 80.0, second: float = 1.1
) -> tuple[float, ...]:
    """Times in radians for consistency steps: t_max = atan(sigma_max / sigma_data), then evenly down from ``second``.

    One step: (t_max,); two: (t_max, 1.1); three: (t_max, 1.1, 0.55). ValueError for less than one step, or a
    ``second`` that is not below t_max.
    """
    _check_num_steps(num_steps)
    later = [second * (1 - k / (num_steps - 1)) for k in range(num_steps - 1)]
    times = (flow.time_from_sigma(sigma_max), *later)
    check_times(times)
    return times


def edit_times(num_steps: int, flow: TrigFlow, sigma_max: float = 80.0) -> tuple[float, ...]:
    """Times in radians for steps under a constraint: t_max (1 − k/N) for k = 0 … N − 1, even in t.

    What is known reaches the rest only where it is renoised, so that steps must come at every level of noise: the first
    knows nothing of it, those at small t are Langevin steps of the conditional distribution. For Gaussian data, whose
    conditional has a closed form, steps even in t come nearer to it than as many even in sigma^(1/7) or log sigma.
    ValueError for less than one step.
    """
    _check_num_steps(num_steps)
    return tuple(flow.time_from_sigma(sigma_max) * (1 - k / num_steps) for k in range(num_steps))


def teacher_times(
    num_steps: int, flow: TrigFlow, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0
) -> tuple[float, ...]:
    """``num_steps + 1`` times in radians, even in sigma^(1/rho) from sigma_max to sigma_min, then 0.

    ValueError for less than one step or sigmas out of order. Source: Karras et al. 2022 (arXiv 2206.00364), eq. 5.
    """
    _check_num_steps(num_steps)
    if not 0 < sigma_min < sigma_max:
        raise ValueError(f"expected 0 < sigma_min < sigma_max, got sigma_min={sigma_min}, sigma_max={sigma_max}")
    high, low = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    sigmas = [(high + k / max(num_steps - 1, 1) * (low - high)) ** rho for k in range(num_steps)]
    return (*(flow.time_from_sigma(sigma) for sigma in sigmas), 0.0)


@torch.no_grad()
def sample_consistency(
    backbone: Backbone,
    flow: TrigFlow,
    noise: Noise,
    times: Sequence[float],
    cond: Conditioning,
    start: Tensor | None = None,
    constrain: Constraint | None = None,
) -> Tensor:
    """x0 ``(B, c, *s)`` by one consistency step a time: denoise to 0, renoise with fresh noise to the next time.

    start: an x0 ``(B, c, *s)`` that is noised to ``times[0]`` instead of starting from noise alone (variations).
    constrain: ``constrain(x0, i)`` replaces what step i denoised, before it is renoised or returned (editing).
    ValueError for times that are empty, do not descend or leave (0, π/2].
    Source: Song et al. 2023 (arXiv 2303.01469), algorithms 1 and 4, on the path of sCM (arXiv 2410.11081).
    """
    check_times(times)
    x0 = start
    for i, time in enumerate(times):
        z = noise(i)
        t = _batch_time(time, z)
        x_t = z if x0 is None else flow.interpolate(x0, z, t)
        x0 = flow.denoise(x_t, backbone(x_t / flow.sigma_data, t, cond), t)
        x0 = x0 if constrain is None else constrain(x0, i)
    assert x0 is not None
    return x0


@torch.no_grad()
def sample_heun(backbone: Backbone, flow: TrigFlow, noise: Noise, times: Sequence[float], cond: Conditioning) -> Tensor:
    """x at the last of ``times`` ``(B, c, *s)`` along dx/dt = sigma_data · F, two evaluations a step, second order.

    The predictor turns (x0, z) rigidly, x' = cos Δ · x + sin Δ · sigma_data · F (Δ = t' − t), which is exact where
    denoiser and noise stand still; the corrector takes their change as constant over the step, which comes to
    x' = x + tan(Δ/2) · sigma_data · (F + F'): Heun's rule (Karras et al. 2022, algorithm 1) in the turning frame.
    A step to t' = 0 is the predictor alone, one denoising. ValueError for times out of order.
    """
    _check_trajectory(times)
    x = noise(0)
    for time, following in pairwise(times):
        delta = following - time
        F = _evaluate(backbone, flow, x, time, cond)
        predicted = math.cos(delta) * x + math.sin(delta) * flow.sigma_data * F
        if following == 0:
            return predicted
        F_next = _evaluate(backbone, flow, predicted, following, cond)
        x = x + math.tan(delta / 2) * flow.sigma_data * (F + F_next)
    return x


@torch.no_grad()
def sample_dpm_solver(
    backbone: Backbone, flow: TrigFlow, noise: Noise, times: Sequence[float], cond: Conditioning
) -> Tensor:
    """x at the last of ``times`` ``(B, c, *s)`` by DPM-Solver++(2M): one evaluation a step, second order.

    x' = (sin t' / sin t) x + (sin(t − t') / sin t) D, where D extrapolates the denoised x0 of this step and the one
    before linearly in log-SNR λ = −log tan t. The first step and one to t' = 0 are of first order.
    ValueError for times out of order. Source: Lu et al. 2022 (arXiv 2211.01095), algorithm 2.
    """
    _check_trajectory(times)
    x = noise(0)
    previous, previous_step = torch.zeros_like(x), math.inf
    for time, following in pairwise(times):
        x0 = math.cos(time) * x - math.sin(time) * flow.sigma_data * _evaluate(backbone, flow, x, time, cond)
        if following == 0:
            return x0
        step = math.log(math.tan(time)) - math.log(math.tan(following))
        D = x0 + step / (2 * previous_step) * (x0 - previous)
        x = (math.sin(following) * x + math.sin(time - following) * D) / math.sin(time)
        previous, previous_step = x0, step
    return x


def _check_num_steps(num_steps: int) -> None:
    if num_steps < 1:
        raise ValueError(f"steps must be at least 1, got {num_steps}")


def _check_trajectory(times: Sequence[float]) -> None:
    check_times(times[:-1] if len(times) > 1 and times[-1] == 0 else times)


def _batch_time(time: float, x: Tensor) -> Tensor:
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    return torch.full((x.shape[0],), time, dtype=dtype, device=x.device)


def _evaluate(backbone: Backbone, flow: TrigFlow, x: Tensor, time: float, cond: Conditioning) -> Tensor:
    return backbone(x / flow.sigma_data, _batch_time(time, x), cond).to(x.dtype)

"""Draws two times for each sample, and computes the direction that losses of flow maps move a network in.

A flow map takes x_t to the point of its trajectory at another time s ≤ t, by one call of a network that is given both:

    f(x_t, t, s) = cos(t − s) x_t − sin(t − s) sigma_data F(x_t / sigma_data, t, s)        (``TrigFlow.move``).

At s = 0 it is the consistency function, and F(u, t, t) is the velocity of the trajectory divided by sigma_data: what a
diffusion teacher computes, so that a teacher's F is a first flow map, exact for small t − s.

Papers on flow maps have the linear path z_τ = (1 − τ) x0 / sigma_data + τ n. It is the same path at τ = sin t / c(t)
with c(t) = cos t + sin t, in other units: z_τ = x_t / (sigma_data c(t)). From t to s, at τ and ρ,

    τ − ρ = sin(t − s) / (c(t) c(s)),        U = (sin t − cos t) u + c(t) F,        V = (sin t − cos t) u + c(t) v,

U = (z_τ − z_ρ) / (τ − ρ) is the average velocity, V = dz/dτ the velocity, and v = (dx/dt) / sigma_data. An error of U
is c(t) times an error of F whatever s is, so losses of U are losses of F with a weight. Source of the average velocity:
Geng et al. 2025, arXiv 2505.13447, section 3; the change of variables is this package's.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from scm_media import draws
from scm_media.conditioning import Conditioning
from scm_media.losses import ConsistencyLoss
from scm_media.tangent import value_and_tangent
from scm_media.trigflow import broadcast_time


def linear_scale(t: Tensor) -> Tensor:
    """Returns c(t) = cos t + sin t, which x_t / sigma_data is divided by on the linear path."""
    return torch.cos(t) + torch.sin(t)


def linear_time(t: Tensor) -> Tensor:
    """Returns τ = sin t / (cos t + sin t) in [0, 1], the time of the linear path with the noise level of t."""
    return torch.sin(t) / linear_scale(t)


def time_from_linear(tau: Tensor) -> Tensor:
    """Returns t in radians for a time τ of the linear path, the inverse of ``linear_time``."""
    return torch.atan2(tau, 1 - tau)


class TwoTimeLoss(ConsistencyLoss):
    """Draws the second time and computes the tangent of the identity that an exact flow map fulfils.

    instantaneous, to_data: the fractions of the samples whose s is t, and 0. The other arguments are those of
    ``ConsistencyLoss``. Raises ValueError for fractions out of range, for a network without an input for s, and as
    ``ConsistencyLoss``.
    """

    takes_target: ClassVar[bool] = True

    def __init__(self, *networks: Any, instantaneous: float, to_data: float, **settings: Any) -> None:
        super().__init__(*networks, **settings)
        if not (instantaneous >= 0 and to_data >= 0 and instantaneous + to_data <= 1):
            raise ValueError(
                "instantaneous and to_data must be fractions of at least 0 that add up to 1 at most, got "
                f"{instantaneous} and {to_data}"
            )
        if getattr(self.backbone, "target", True) is None:
            raise ValueError(
                f"{type(self).__name__} trains a flow map, and this {type(self.backbone).__name__} has no input for "
                "the time that it goes to: make it with target=True"
            )
        self.instantaneous, self.to_data = instantaneous, to_data

    def draw_times(self, x0: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns noise like x0 and times t and s ≤ t ``(B,)``: two draws in order, then the two fractions of s."""
        z, first = self.draw(x0)
        second = self.timesteps.sample(len(x0), self.flow.sigma_data).to(first).clamp(max=self.latest_time)
        t, s = torch.maximum(first, second), torch.minimum(first, second)
        which = draws.rand(len(t), device=t.device)
        s = torch.where(which < self.instantaneous, t, s)
        return z, t, torch.where(which >= 1 - self.to_data, 0.0, s)

    def velocities(
        self, x0: Tensor, z: Tensor, x_t: Tensor, t: Tensor, cond: Conditioning, own: bool
    ) -> tuple[Tensor, Tensor]:
        """Returns dx/dt, of the teacher or of the path, and the one that the tangent follows.

        own: the tangent follows the network's own velocity sigma_data F(u, t, t).
        """
        dxdt = self.trajectory_velocity(x0, z, x_t, t, cond)
        if not own:
            return dxdt, dxdt
        with torch.no_grad():
            followed = self.backbone(x_t / self.flow.sigma_data, t, replace(cond, target=t)).to(x_t.dtype)
        followed = self.flow.sigma_data * followed
        if cond.mask is not None:
            followed = torch.where(cond.mask > 0, self.flow.velocity(x0, z, t), followed)
        return dxdt, followed

    def eulerian(
        self, x_t: Tensor, dxdt: Tensor, followed: Tensor, times: tuple[Tensor, Tensor], cond: Conditioning, r: Any
    ) -> tuple[Tensor, Tensor]:
        """Returns F with its graph, and the tangent g ``(B, c, *s)`` by which U misses V − (τ − ρ) dU/dτ, over c(t).

        dU/dτ is that of the network without its graph along the trajectory, whose velocity is ``followed``; times are
        t and s. r multiplies the part of it that holds u + dF/dt. With ``followed`` = dx/dt, g is
        (c(t) / c(s)) · (cos Δ (v − F) − r sin Δ (u + dF/dt)), Δ = t − s, and at r = 1 that is
        (c(t) / c(s)) · df/dt / sigma_data, which exact flow maps have no part of.
        """
        t, s = times
        sigma, sin_gap = self.flow.sigma_data, torch.sin(t - s)
        direction = broadcast_time(sin_gap, x_t) * followed / sigma
        dual = value_and_tangent(
            self.backbone, x_t / sigma, t, replace(cond, target=s), direction, sin_gap, self.tangent_method
        )
        F, dF = dual.value, dual.tangent
        F, dF = (each if each.dtype == torch.float64 else each.float() for each in (F, dF))
        with torch.no_grad():
            t, s, sin_gap = (broadcast_time(each, x_t) for each in (t, s, sin_gap))
            turn = sin_gap * (torch.sin(t) - torch.cos(t)) / linear_scale(s)
            bend = linear_scale(t) / linear_scale(s) * (sin_gap * x_t / sigma + dF)
            g = (dxdt / sigma - F) - turn * (followed / sigma - F) - r * bend
        return F, g

"""Flow-map distillation: any time to any other, by derivatives at the point or at the end of a step."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from scm_media import draws
from scm_media.conditioning import Conditioning
from scm_media.interfaces import Backbone
from scm_media.losses import Terms, masked_mean_square
from scm_media.nn.dual import DualTensor
from scm_media.nn.embedding import PlainConditioning, as_conditioning
from scm_media.parts import part
from scm_media.tangent import TangentMethod, value_and_tangent
from scm_media.timesteps import TimestepDistribution
from scm_media.trigflow import TrigFlow, broadcast_time
from scm_media.two_times import TwoTimeLoss, linear_scale, linear_time, time_from_linear


@part("loss", timesteps="timesteps")
class FlowMapLoss(TwoTimeLoss):
    """Eulerian or Lagrangian flow-map distillation (Align Your Flow; Sabour et al. 2025, arXiv 2506.14603).

    With f(x_t, t, s) the flow map of ``scm_media.two_times``, Δ = t − s, c(t) = cos t + sin t and v the velocity over
    sigma_data, loss = mean[ ‖F − F⁻ − g‖²/D ] for a normalised g, as ``ConsistencyLoss`` has it:

        eulerian (EMD):    g = (c(t) / c(s)) · (cos Δ (v(x_t, t) − F⁻) − r sin Δ (u + dF⁻/dt)),
        lagrangian (LMD):  g = (c(s) / c(t)) · (v(f⁻, s) − sin Δ u − cos Δ F⁻ + r sin Δ ∂F⁻/∂s).

    At r = 1 they are (c(t) / c(s)) · (df/dt) / sigma_data along the trajectory, 0 where the end does not depend on the
    start, and (c(s) / c(t)) · (v − (∂f/∂s) / sigma_data), 0 where the end moves with the teacher's velocity. Both are
    the paper's directions on the linear path. At s = 0 the Eulerian g is that of sCM times c(t) / cos t.

    eulerian is for distillation and, with the velocity of the path as v, for training from data; lagrangian needs a
    teacher, which it asks at the student's own points.

    timesteps: the distribution of the distance from t to s. With T drawn from it, the distance is d = sin T / c(T) in
    the time of the linear path, and s is uniform where there is room for it, ρ ~ U[0, 1 − d]; log-normal with mean −1.0
    and standard deviation 1.4 where None (the paper's: −1.5 and 1.0). instantaneous, to_data: the fractions of the
    samples whose s is t, and 0; the paper has none of either. r rises from 0 to ``tangent_limit`` over
    ``tangent_warmup`` steps; below 1 it keeps a part of the velocity's loss. The other arguments are those of
    ``ConsistencyLoss``.

    Raises ValueError for settings out of range, for a lagrangian loss without a teacher, for a network without an input
    for s, and as ``ConsistencyLoss``.
    """

    default_timesteps: ClassVar[tuple[float, float]] = (-1.0, 1.4)

    def __init__(
        self,
        backbone: Backbone,
        flow: TrigFlow | None = None,
        timesteps: TimestepDistribution | None = None,
        *,
        teacher: Backbone | None = None,
        direction: Literal["eulerian", "lagrangian"] = "eulerian",
        instantaneous: float = 0.0,
        to_data: float = 0.25,
        norm: Literal["rms", "l2"] = "rms",
        norm_constant: float = 0.1,
        tangent_warmup: int = 500,
        tangent_limit: float = 0.99,
        tangent_method: TangentMethod = "one_pass",
        label_dropout: float = 0.0,
        guidance_max: float | None = None,
    ) -> None:
        super().__init__(
            backbone,
            flow,
            timesteps,
            teacher=teacher,
            instantaneous=instantaneous,
            to_data=to_data,
            norm=norm,
            norm_constant=norm_constant,
            tangent_warmup=tangent_warmup,
            tangent_method=tangent_method,
            label_dropout=label_dropout,
            guidance_max=guidance_max,
        )
        if direction not in ("eulerian", "lagrangian"):
            raise ValueError(f"direction must be 'eulerian' or 'lagrangian', got {direction!r}")
        if direction == "lagrangian" and teacher is None:
            raise ValueError(
                "direction 'lagrangian' needs a teacher, whose velocity it asks at the student's points: set "
                "student.objective=scd, or direction=eulerian"
            )
        if not 0 <= tangent_limit <= 1:
            raise ValueError(f"tangent_limit must lie in [0, 1], got {tangent_limit}")
        self.direction, self.tangent_limit = direction, tangent_limit

    def draw_times(self, x0: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns noise like x0 and times t and s ≤ t ``(B,)``, a random distance apart."""
        z, drawn = self.draw(x0)
        distance = linear_time(drawn)
        place, which = (draws.rand(len(x0), device=x0.device).to(distance) for _ in range(2))
        end = torch.where(which >= 1 - self.to_data, 0.0, place * (1 - distance))
        t, s = (time_from_linear(each).clamp(max=self.latest_time) for each in (end + distance, end))
        return z, t, torch.where(which < self.instantaneous, t, s)

    def lagrangian(
        self, x0: Tensor, z: Tensor, times: tuple[Tensor, Tensor], cond: Conditioning, r: Any
    ) -> tuple[Tensor, Tensor]:
        """Returns F with its graph, and the tangent g ``(B, c, *s)`` of the map's end; times are t and s.

        Where the latent is given, the end is the path's point, because every trajectory ends at its value.
        """
        assert self.teacher is not None
        t, s = times
        x_t, sigma = self.flow.interpolate(x0, z, t), self.flow.sigma_data
        sin_gap, still = torch.sin(t - s), torch.zeros_like(t)
        both = replace(cond, target=DualTensor(s, sin_gap))
        dual = value_and_tangent(self.backbone, x_t / sigma, t, both, torch.zeros_like(x_t), still, self.tangent_method)
        F, dF = (each if each.dtype == torch.float64 else each.float() for each in (dual.value, dual.tangent))
        with torch.no_grad():
            end = self.flow.move(x_t, F, t, s)
            if cond.mask is not None:
                end = torch.where(cond.mask > 0, self.flow.interpolate(x0, z, s), end)
            velocity = self.teacher(end / sigma, s, cond).to(F.dtype)
            scale = broadcast_time(linear_scale(s) / linear_scale(t), x_t)
            cos_gap, sin_gap = (broadcast_time(each, x_t) for each in (torch.cos(t - s), sin_gap))
            g = scale * (velocity - sin_gap * x_t / sigma - cos_gap * F + r * dF)
        return F, g

    def forward(
        self, x0: Tensor, cond: PlainConditioning = None, step: Tensor | float | None = None
    ) -> tuple[Tensor, Terms]:
        """Returns the loss over latents x0 ``(B, c, *s)`` at a training step, counted from 0, and its terms.

        The terms are t, loss, gap (t − s) and g_rms, before g is normalised. cond, step: as for ``ConsistencyLoss``.
        """
        r = self.warmup(step) * self.tangent_limit
        cond = as_conditioning(cond, self.backbone, x0.device)
        z, t, s = self.draw_times(x0)
        cond = self.draw_guidance(self.drop_labels(cond, len(x0), x0.device), len(x0), x0.device)
        if self.direction == "eulerian":
            x_t = self.flow.interpolate(x0, z, t)
            dxdt = self.trajectory_velocity(x0, z, x_t, t, cond)
            F, g = self.eulerian(x_t, dxdt, dxdt, (t, s), cond, r)
        else:
            F, g = self.lagrangian(x0, z, (t, s), cond, r)
        with torch.no_grad():
            target = F + self.normalize(g, cond.loss_mask)
        error = masked_mean_square(F - target, cond.loss_mask)
        g_rms = masked_mean_square(g, cond.loss_mask).sqrt()
        return error.mean(), {"t": t, "loss": error.detach(), "gap": t - s, "g_rms": g_rms}

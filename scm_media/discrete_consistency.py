"""Discrete consistency losses: neighbouring points of a trajectory, a finite gap apart, share their end."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from scm_media.interfaces import Backbone
from scm_media.losses import DistillationLoss, Terms, masked_mean_square
from scm_media.nn.embedding import PlainConditioning, as_conditioning
from scm_media.parts import part
from scm_media.samplers import teacher_times
from scm_media.timesteps import TimestepDistribution
from scm_media.trigflow import TrigFlow, broadcast_time

HUBER = 0.00054
"""c / √D of the pseudo-Huber distance."""


@part("loss", timesteps="timesteps")
class DiscreteConsistencyLoss(DistillationLoss):
    """Discrete consistency distillation or training, whose gap shrinks (Song et al. 2023, arXiv 2303.01469).

    For a point x_t and the point x_s of its trajectory at less noise, s < t, with f the student's x0,

        loss = mean[ (sqrt(‖f(x_t, t) − f⁻(x_s, s)‖² + c²) − c) / (√D · (t − s)) ],        c = 0.00054 √D

    (the pseudo-Huber distance of Song & Dhariwal 2023, arXiv 2310.14189). With a teacher, x_s is one step of the
    teacher's ODE, x_s = cos(t − s) x_t − sin(t − s) sigma_data F_teacher; without one it is the path through the same
    x0 and z.

    schedule "ratio": the gap follows Easy Consistency Tuning (Geng et al. 2024, arXiv 2406.14548, section 3.2): the
    noise level of s is σ_s = σ_t (1 − q^(−a) n(σ_t)) with n(σ) = 1 + k sigmoid(−b σ), and a rises by one at equal parts
    of the training, from 1 to ``stages``. "grid": t and s are neighbours in the times of ``teacher_times``, σ evenly
    spaced in σ^(1/7) from 80, the last one 0; t is the next one above the time that is drawn. The number of steps in
    the grid doubles at equal parts of the training from the first to the second of ``grid`` (arXiv 2310.14189, section
    3.4; two equal numbers, such as 18 and 18, are the fixed grid of arXiv 2303.01469).

    distance "l2" has ‖f − f⁻‖²/D in the place of the pseudo-Huber distance; divide_by_gap false leaves out 1 / (t − s).
    "grid" with "l2" and without the division is consistency distillation or training as first published, with the
    student's own weights in f⁻ in the place of an average (arXiv 2310.14189, section 3.2, finds no average better); its
    LPIPS distance is not offered.

    teacher, flow, timesteps: as for ``ConsistencyLoss``. q, k, b: of the gap of "ratio". stages, max_steps: the number
    of gaps, and the steps over which they, or the grids, are spread; later steps keep the last. Raises ValueError for
    settings out of range, and as ``ConsistencyLoss``.
    """

    default_timesteps = (-1.0, 1.4)

    def __init__(
        self,
        backbone: Backbone,
        flow: TrigFlow | None = None,
        timesteps: TimestepDistribution | None = None,
        *,
        teacher: Backbone | None = None,
        schedule: Literal["ratio", "grid"] = "ratio",
        q: float = 2.0,
        k: float = 8.0,
        b: float = 1.0,
        stages: int = 8,
        max_steps: int = 4000,
        grid: tuple[int, int] = (10, 1280),
        distance: Literal["huber", "l2"] = "huber",
        divide_by_gap: bool = True,
        label_dropout: float = 0.0,
    ) -> None:
        super().__init__(backbone, teacher, flow, timesteps, "none", label_dropout)
        if not q > 1:
            raise ValueError(f"q must be above 1, so that the gap shrinks; got {q}")
        if not (stages >= 1 and max_steps >= 1):
            raise ValueError(f"stages and max_steps must be at least 1, got {stages} and {max_steps}")
        if not (k >= 0 and b > 0):
            raise ValueError(f"k must be at least 0 and b above 0, got {k} and {b}")
        if schedule not in ("ratio", "grid"):
            raise ValueError(f"schedule must be 'ratio' or 'grid', got {schedule!r}")
        if distance not in ("huber", "l2"):
            raise ValueError(f"distance must be 'huber' or 'l2', got {distance!r}")
        if not (len(grid) == 2 and 2 <= grid[0] <= grid[1]):
            raise ValueError(f"grid must be two numbers of steps of at least 2 that do not fall, got {list(grid)}")
        self._freeze(teacher)
        self.schedule, self.q, self.k, self.b, self.stages, self.max_steps = schedule, q, k, b, stages, max_steps
        self.grid, self.distance, self.divide_by_gap = tuple(grid), distance, divide_by_gap

    def earlier_time(self, t: Tensor, step: Tensor | float) -> Tensor:
        """Returns the times s ``(B,)`` below t ``(B,)`` at a training step; 0 where the gap reaches the data."""
        done = (torch.as_tensor(step, dtype=torch.float32) * self.stages / self.max_steps).floor()
        shrinking = (done.clamp(max=self.stages - 1) + 1).to(t.device)
        sigma = self.flow.sigma_data * torch.tan(t)
        ratio = 1 - (1 + self.k * torch.sigmoid(-self.b * sigma)) / self.q**shrinking
        return torch.atan2(sigma * ratio.clamp(min=0.0), torch.full_like(sigma, self.flow.sigma_data))

    def num_grid_steps(self, step: Tensor | float) -> int:
        """Returns the number of steps in the grid at a training step: doubled at equal parts of the training."""
        first, last = self.grid
        doublings = math.floor(math.log2(last // first)) + 1
        done = int(min(float(step), self.max_steps) * doublings / self.max_steps)
        return min(first * 2**done, last)

    def neighbours(self, t: Tensor, step: Tensor | float) -> tuple[Tensor, Tensor]:
        """Returns the times t and s < t ``(B,)`` of two points for a drawn time ``(B,)``, at a training step."""
        if self.schedule == "ratio":
            return t, self.earlier_time(t, step)
        times = torch.tensor(teacher_times(self.num_grid_steps(step), self.flow)[::-1], dtype=t.dtype, device=t.device)
        above = torch.searchsorted(times, t).clamp(1, len(times) - 1)
        return times[above].clamp(max=self.latest_time), times[above - 1]

    def forward(
        self, x0: Tensor, cond: PlainConditioning = None, step: Tensor | float | None = None
    ) -> tuple[Tensor, Terms]:
        """Returns the loss over latents x0 ``(B, c, *s)`` at a training step, counted from 0, and its terms.

        The terms are t, loss (the squared distance) and gap (t − s). Raises ValueError without a step, which the gap
        depends on.
        """
        if step is None:
            raise ValueError("the gap shrinks with the training, so the loss needs the step: loss(x0, cond, step=step)")
        cond = as_conditioning(cond, self.backbone, x0.device)
        z, t = self.draw(x0)
        cond = self.drop_labels(cond, len(x0), x0.device)
        t, s = self.neighbours(t, step)
        x_t = self.flow.interpolate(x0, z, t)
        with torch.no_grad():
            if self.teacher is None:
                x_s = self.flow.interpolate(x0, z, s)
            else:
                gap = broadcast_time(t - s, x_t)
                F = self.teacher(x_t / self.flow.sigma_data, t, cond).to(x_t.dtype)
                x_s = torch.cos(gap) * x_t - torch.sin(gap) * self.flow.sigma_data * F
                if cond.mask is not None:
                    x_s = torch.where(cond.mask > 0, self.flow.interpolate(x0, z, s), x_s)
            state = torch.random.get_rng_state()
            target = self.denoise(self.backbone, x_s, s, cond)
        torch.random.set_rng_state(state)  # both calls drop the same
        square = masked_mean_square(self.denoise(self.backbone, x_t, t, cond) - target, cond.loss_mask)
        distance = square if self.distance == "l2" else torch.sqrt(square + HUBER**2) - HUBER
        if self.divide_by_gap:
            distance = distance / (t - s)
        return distance.mean(), {"t": t, "loss": square.detach(), "gap": t - s}

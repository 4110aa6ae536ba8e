"""A sampler, a mask type and a loss of a package of its own: nothing of scm-media knows them."""

from __future__ import annotations

import math
from itertools import pairwise

import torch

from scm_media import DiffusionLoss, mask_type, part, sampler


@sampler("euler", evaluations=lambda steps: steps)
def sample_euler(run, times, callback):
    """Returns x at the last time by Euler's method in the rotating frame."""
    x = run.noise(0)
    for i, (time, following) in enumerate(pairwise(times)):
        F = run.flow.sigma_data * run.field(x, time)
        callback(i, time, math.cos(time) * x - math.sin(time) * F)
        x = math.cos(following - time) * x + math.sin(following - time) * F
    return x


@mask_type("middle")
def mask_middle(latent, axis, fraction, uniform):
    """Gives the half in the middle."""
    size = latent.shape[axis]
    position = torch.arange(size, device=latent.device).reshape(-1, *[1] * (-axis - 1))
    return (position >= size // 4) & (position < size - size // 4)


@part("loss", timesteps="timesteps")
class ScaledDiffusionLoss(DiffusionLoss):
    """The diffusion loss times a factor."""

    def __init__(self, *, factor: float = 1.0, **settings) -> None:
        super().__init__(**settings)
        self.factor = factor

    def forward(self, x0, cond=None, step=None):
        """Returns the loss and its terms."""
        loss, terms = super().forward(x0, cond, step)
        return self.factor * loss, {**terms, "factor": torch.full_like(terms["t"], self.factor)}

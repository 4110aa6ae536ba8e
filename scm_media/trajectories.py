"""Points of the trajectories of a teacher, dx/dt = sigma_data · F_teacher from noise to data."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Trajectory:
    """One point of the trajectory of each sample, and its end.

    x_t: ``(B, c, *s)`` at the times t ``(B,)``, in radians. x0: the ends ``(B, c, *s)``. given, mask: the latents
    ``(B, c, *s)`` that the teacher was given where mask ``(B, 1, *s)`` is one; None where it was given none. guidance:
    the teacher's guidance scale ``(B,)`` where the student takes it as an input.
    """

    x_t: Tensor
    t: Tensor
    x0: Tensor
    given: Tensor | None = None
    mask: Tensor | None = None
    guidance: Tensor | None = None

    def to(self, device: torch.device | str) -> Trajectory:
        """Returns the same points on another device."""

        def move(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor.to(device, non_blocking=True)

        x_t, t, x0 = (tensor.to(device, non_blocking=True) for tensor in (self.x_t, self.t, self.x0))
        return Trajectory(x_t, t, x0, move(self.given), move(self.mask), move(self.guidance))

"""Guidance by labels or by a second network."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from scm_media.conditioning import Conditioning
from scm_media.interfaces import Backbone
from scm_media.trigflow import broadcast_time


def parts_of(network: object) -> tuple[nn.Module, ...]:
    """Returns the modules that a frozen network calls: itself, or of a guided one the network and its guide."""
    parts = (network.backbone, network.guide) if isinstance(network, Guided) else (network,)
    return tuple(each for each in parts if isinstance(each, nn.Module))


class Guided(nn.Module):
    """A backbone with guidance: F_∅ + s (F_c − F_∅) for a scale s, where s = 1 means none.

    F_∅ is the backbone without labels and text (classifier-free guidance, Ho & Salimans 2022, arXiv 2207.12598,
    equation 6), or ``guide``, the autoguidance model, with the same conditioning (Karras et al. 2024, arXiv
    2406.02507).
    negative: gives the conditioning of F_∅ instead, such as a text that samples are steered away from.
    scale: None takes the scale of each sample from ``cond.guidance`` ``(B,)``. interval: the times in radians, both
    ends included, that guidance is limited to (Kynkäänniemi et al. 2024, arXiv 2404.07724). A call needs one network
    call if the scale is 1 or no time lies in the interval, otherwise two. Raises ValueError for a negative scale and
    an interval outside [0, π/2].
    """

    def __init__(
        self,
        backbone: Backbone,
        scale: float | None,
        interval: tuple[float, float] | None = None,
        guide: Backbone | None = None,
        negative: Callable[[Conditioning], Conditioning] | None = None,
    ) -> None:
        super().__init__()
        if scale is not None and not (math.isfinite(scale) and scale >= 0):
            raise ValueError(f"guidance must be a scale of at least 0, got {scale}: 1 is none, 1.5 to 4 are usual")
        if interval is not None and not 0 <= interval[0] < interval[1] <= math.pi / 2:
            raise ValueError(f"guidance interval must be (low, high) within [0, π/2] radians, got {interval}")
        self.backbone = backbone
        self.scale = scale
        self.interval = interval
        self.guide = guide
        self.negative = negative

    def forward(self, u: Tensor, t: Tensor, cond: Conditioning) -> Tensor:
        """Returns the guided F ``(B, c, *s)``; raises ValueError for a scale of None without ``cond.guidance``."""
        F = self.backbone(u, t, cond)
        inside = None
        if self.interval is not None:
            inside = (t >= self.interval[0]) & (t <= self.interval[1])
        if self.scale == 1 or (inside is not None and not inside.any()):
            return F
        if self.guide is not None:
            F_0 = self.guide(u, t, cond)
        else:
            everywhere = torch.ones_like(t, dtype=torch.bool)
            F_0 = self.backbone(u, t, cond.drop(everywhere) if self.negative is None else self.negative(cond))
        guided = F_0 + self._scale(F, cond) * (F - F_0)
        return guided if inside is None else torch.where(broadcast_time(inside, F), guided, F)

    def _scale(self, F: Tensor, cond: Conditioning) -> Tensor | float:
        if self.scale is not None:
            return self.scale
        if cond.guidance is None:
            raise ValueError("a scale for each sample is expected in Conditioning.guidance (B,), got none")
        return broadcast_time(cond.guidance.to(F), F)

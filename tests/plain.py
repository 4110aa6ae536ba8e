"""Backbones of torch's own layers, which know no ``DualTensor``."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from scm_media.conditioning import Conditioning
from scm_media.trigflow import broadcast_time


class PlainBackbone(nn.Module):
    """F(u, t) for u ``(B, 2, h, w)``: layers over u and cos t as a third channel; ``over`` is the axis of channels."""

    def __init__(self, *layers: nn.Module, over: int = 1) -> None:
        super().__init__()
        self.layers, self.over = nn.Sequential(*layers), over

    def forward(self, u: Tensor, t: Tensor, cond: Conditioning) -> Tensor:
        x = torch.cat([u, broadcast_time(torch.cos(t), u).expand_as(u[:, :1])], dim=1)
        return self.layers(x.movedim(1, self.over)).movedim(self.over, 1)


def convolutional(dropout: float = 0.0) -> PlainBackbone:
    """Convolutions and group norms."""
    torch.manual_seed(0)
    return PlainBackbone(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.GroupNorm(4, 16),
        nn.SiLU(),
        nn.Dropout(dropout),
        nn.Conv2d(16, 16, 3, padding=1),
        nn.GroupNorm(4, 16),
        nn.SiLU(),
        nn.Conv2d(16, 2, 3, padding=1),
    )


def pointwise() -> PlainBackbone:
    """Linear layers and a layer norm over the channels of each place."""
    torch.manual_seed(0)
    layers = nn.Linear(3, 32), nn.LayerNorm(32), nn.GELU(), nn.Linear(32, 32), nn.SiLU(), nn.Linear(32, 2)
    return PlainBackbone(*layers, over=-1)


def attentive() -> PlainBackbone:
    """A transformer layer of torch over each row of places."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, activation="gelu", batch_first=True, norm_first=True)
    return PlainBackbone(nn.Linear(3, 16), nn.Flatten(1, 2), layer, nn.Linear(16, 2), nn.Unflatten(1, (4, 6)), over=-1)

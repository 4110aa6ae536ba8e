"""The U-Net in named sizes, for images and their latents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scm_media.nn.unet import UNet
from scm_media.parts import part

SIZES: Mapping[str, Mapping[str, Any]] = {
    "nano": {"channels": 32, "multipliers": (1, 2, 3), "num_blocks": 1, "attention_levels": (2,)},
    "micro": {"channels": 48, "num_blocks": 1},
    "mini": {"channels": 64, "num_blocks": 2},
    "xxs": {"channels": 64},
    "xs": {"channels": 128},
    "s": {"channels": 192},
    "m": {"channels": 256},
    "l": {"channels": 320},
    "xl": {"channels": 384},
    "xxl": {"channels": 448},
}
"""Arguments of each size. From xxs to xxl they are EDM2's networks (table 2 of arXiv 2312.02696)."""


@part("backbone")
def unet(
    in_channels: int,
    size: str = "micro",
    labels: Mapping[str, int] | None = None,
    dropout: float = 0.0,
    dropout_from: int = 0,
    num_cond_channels: int = 0,
    guidance: bool = False,
    text: Mapping[str, int] | None = None,
    target: bool = False,
) -> UNet:
    """Returns the U-Net of a named size for latents ``(B, in_channels, H, W)``; the other keys are ``UNet``'s.

    With one label of 1,000 classes and a 4×64×64 latent, sizes s, m, l, xl, xxl have 280, 498, 777, 1119, 1523 million
    parameters, and 101, 179, 279, 402, 547 thousand million multiply-adds a forward pass. EDM2's table 2 says 102,
    181, 282, 406, 552 Gflops: it counts a multiply-add as one operation. Raises ValueError for an unknown size.
    """
    if size not in SIZES:
        raise ValueError(f"backbone.size must be one of {', '.join(SIZES)}; got {size!r}")
    return UNet(
        in_channels,
        rank=2,
        labels=labels,
        dropout=dropout,
        dropout_from=dropout_from,
        num_cond_channels=num_cond_channels,
        guidance=guidance,
        text=text,
        target=target,
        **SIZES[size],
    )

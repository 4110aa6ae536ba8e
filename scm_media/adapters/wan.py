"""Wan: a rectified flow on latents of videos, with text tokens."""

from __future__ import annotations

from typing import Any

from scm_media.adapters.adapter import Adapter

NUM_FRAMES, HEIGHT, WIDTH = 21, 60, 104
"""Latents of 81 frames of 480 × 832 pixels, which Wan 2.1 is made for; its configuration does not say."""


def _call(network: Any, y: Any, time: Any, cond: Any) -> Any:
    return network(y, timestep=time, encoder_hidden_states=cond.tokens, return_dict=False)[0]


WAN = Adapter(
    "WanTransformer3DModel",
    "transformer",
    _call,
    lambda config: (config.in_channels, NUM_FRAMES, HEIGHT, WIDTH),
    needs=("tokens",),
)

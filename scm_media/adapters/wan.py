"""Wan: a rectified flow on latents of videos, with text tokens."""

from __future__ import annotations

from typing import Any

from scm_media.adapters.adapter import SIZE, Adapter


def _call(network: Any, y: Any, time: Any, cond: Any) -> Any:
    return network(y, timestep=time, encoder_hidden_states=cond.tokens, return_dict=False)[0]


WAN = Adapter(
    "WanTransformer3DModel",
    _call,
    lambda config: {"tokens": config["text_dim"]},
    lambda config: (config["in_channels"], 3, SIZE // 2, SIZE // 2),
)

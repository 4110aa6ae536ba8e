"""Sana: a rectified flow with linear attention and text tokens."""

from __future__ import annotations

from typing import Any

from scm_media.adapters.adapter import Adapter


def _call(network: Any, y: Any, time: Any, cond: Any) -> Any:
    scaled = time * network.config.timestep_scale
    return network(
        y,
        encoder_hidden_states=cond.tokens,
        encoder_attention_mask=cond.token_mask,
        timestep=scaled,
        guidance=cond.guidance,
        return_dict=False,
    )[0]


SANA = Adapter("SanaTransformer2DModel", _call, lambda config: {"tokens": config["caption_channels"]})

"""LTX-Video: a rectified flow on one token for each latent of a video, with text tokens."""

from __future__ import annotations

from typing import Any

import torch
from einops import rearrange

from scm_media.adapters.adapter import SIZE, Adapter

FRAME_RATE, FRAMES, PIXELS = 25, 8, 32
"""Frames a second, and the frames and pixels that a latent stands for: places are in seconds and pixels."""


def _call(network: Any, y: Any, time: Any, cond: Any) -> Any:
    _, _, frames, height, width = y.shape
    mask = cond.token_mask
    mask = torch.ones(cond.tokens.shape[:2], device=cond.tokens.device) if mask is None else mask
    prediction = network(
        hidden_states=rearrange(y, "b c f h w -> b (f h w) c"),
        encoder_hidden_states=cond.tokens,
        timestep=time,
        encoder_attention_mask=mask.to(torch.int64),
        num_frames=frames,
        height=height,
        width=width,
        rope_interpolation_scale=(FRAMES / FRAME_RATE, PIXELS, PIXELS),
        return_dict=False,
    )[0]
    return rearrange(prediction, "b (f h w) c -> b c f h w", f=frames, h=height)


LTX = Adapter(
    "LTXVideoTransformer3DModel",
    _call,
    lambda config: {"tokens": config["caption_channels"]},
    lambda config: (config["in_channels"], 3, SIZE // 4, SIZE // 4),
    gives_levels=True,
)

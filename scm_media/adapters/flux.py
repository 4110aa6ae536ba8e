"""FLUX: a rectified flow on tokens of 2 × 2 latents, whose time runs from 0 to 1."""

from __future__ import annotations

from typing import Any

import torch
from einops import rearrange

from scm_media.adapters.adapter import SIZE, Adapter


def _call(network: Any, y: Any, time: Any, cond: Any) -> Any:
    height, width = y.shape[-2] // 2, y.shape[-1] // 2
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    places = torch.stack([torch.zeros_like(rows), rows, columns], dim=-1).flatten(0, 1)
    guidance = None
    if network.config.guidance_embeds:  # FLUX.1-dev takes the scale as an input
        guidance = y.new_ones(len(y)) if cond.guidance is None else cond.guidance
    prediction = network(
        hidden_states=rearrange(y, "b c (h p) (w q) -> b (h w) (c p q)", p=2, q=2),
        timestep=time,
        encoder_hidden_states=cond.tokens,
        pooled_projections=cond.pooled,
        img_ids=places.to(cond.tokens),
        txt_ids=cond.tokens.new_zeros(cond.tokens.shape[1], 3),
        guidance=guidance,
        return_dict=False,
    )[0]
    return rearrange(prediction, "b (h w) (c p q) -> b c (h p) (w q)", h=height, p=2, q=2)


FLUX = Adapter(
    "FluxTransformer2DModel",
    _call,
    lambda config: {"tokens": config["joint_attention_dim"], "pooled": config["pooled_projection_dim"]},
    lambda config: (config["in_channels"] // 4, SIZE, SIZE),
    time_scale=1.0,
    gives_levels=True,
)

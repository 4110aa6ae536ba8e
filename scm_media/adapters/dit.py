"""Diffusion transformers of classes (DiT, Peebles & Xie 2023) and PixArt, which predict noise and its variance."""

from __future__ import annotations

from typing import Any

import torch

from scm_media.adapters.adapter import Adapter, first_half


def _call_dit(network: Any, y: Any, time: Any, cond: Any) -> Any:
    num = network.config.num_embeds_ada_norm
    label = torch.where(cond.label < 0, num, cond.label)  # the last embedding stands for no label
    return first_half(network(y, timestep=time, class_labels=label, return_dict=False)[0], y)


def _call_pixart(network: Any, y: Any, time: Any, cond: Any) -> Any:
    prediction = network(
        y,
        encoder_hidden_states=cond.tokens,
        encoder_attention_mask=cond.token_mask,
        timestep=time,
        added_cond_kwargs={"resolution": None, "aspect_ratio": None},
        return_dict=False,
    )[0]
    return first_half(prediction, y)


DIT = Adapter(
    "DiTTransformer2DModel", _call_dit, lambda config: {"label": config["num_embeds_ada_norm"]}, null_label=True
)
PIXART = Adapter("PixArtTransformer2DModel", _call_pixart, lambda config: {"tokens": config["caption_channels"]})

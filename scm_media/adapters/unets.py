"""The U-Nets of diffusers: unconditional or of classes, and conditioned on text."""

from __future__ import annotations

from typing import Any

from scm_media.adapters.adapter import Adapter


def _call(network: Any, y: Any, time: Any, cond: Any) -> Any:
    return network(y, time, class_labels=cond.label, return_dict=False)[0]


def _call_with_text(network: Any, y: Any, time: Any, cond: Any) -> Any:
    added = None
    if network.config.addition_embed_type == "text_time":  # Stable Diffusion XL: pooled text, and sizes as six numbers
        sizes = [*(8 * size for size in y.shape[-2:]), 0, 0, *(8 * size for size in y.shape[-2:])]
        added = {"text_embeds": cond.pooled, "time_ids": y.new_tensor([sizes] * len(y))}
    return network(
        y,
        time,
        encoder_hidden_states=cond.tokens,
        encoder_attention_mask=cond.token_mask,
        added_cond_kwargs=added,
        return_dict=False,
    )[0]


UNET = Adapter("UNet2DModel", _call)
UNET_WITH_TEXT = Adapter("UNet2DConditionModel", _call_with_text, needs=("tokens",))

"""The U-Nets of diffusers: unconditional or of classes, and conditioned on text."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as nnf

from scm_media.adapters.adapter import Adapter


def _call(network: Any, y: Any, time: Any, cond: Any) -> Any:
    num, label = network.config.num_class_embeds, cond.label
    if num is not None:
        if not getattr(network, "null_label", True) and bool((label < 0).any()):
            raise ValueError(
                f"UNet2DModel has {num} embeddings for as many classes and none for no label, which guidance by labels "
                "needs: use guidance 1"
            )
        label = torch.where(label < 0, num - 1, label)  # the last embedding stands for no label
    return network(y, time, class_labels=label, return_dict=False)[0]


def _inputs(config: Any) -> dict[str, int]:
    num = config.get("num_class_embeds")
    return {} if num is None else {"label": num}


def _call_with_text(network: Any, y: Any, time: Any, cond: Any) -> Any:
    added = None
    if network.config.addition_embed_type == "text_time":  # Stable Diffusion XL: pooled text, and sizes as six numbers
        sizes = [*(8 * size for size in y.shape[-2:]), 0, 0, *(8 * size for size in y.shape[-2:])]
        added = {"text_embeds": cond.pooled, "time_ids": y.new_tensor([sizes]).expand(y.shape[0], -1)}
    return network(
        y,
        time,
        encoder_hidden_states=cond.tokens,
        encoder_attention_mask=cond.token_mask,
        added_cond_kwargs=added,
        timestep_cond=_embed_scale(network, y, cond),
        return_dict=False,
    )[0]


def _embed_scale(network: Any, y: Any, cond: Any) -> Any:
    """Returns the guidance scale's embedding as the pipelines of latent consistency models make it; None for none.

    Source: Luo et al. 2023 (arXiv 2310.04378), section 4.2: sines and cosines of 1000 (s − 1).
    """
    width = network.config.time_cond_proj_dim
    if width is None:
        return None
    scale = y.new_ones(len(y), dtype=torch.float32) if cond.guidance is None else cond.guidance.float()
    half = width // 2
    frequencies = torch.exp(torch.arange(half, device=y.device) * (-math.log(10_000.0) / (half - 1)))
    angles = 1000 * (scale[:, None] - 1) * frequencies
    return nnf.pad(torch.cat([angles.sin(), angles.cos()], 1), (0, width % 2)).to(y.dtype)


def _inputs_with_text(config: Any) -> dict[str, int]:
    tokens = config.get("encoder_hid_dim") or config["cross_attention_dim"]
    if config.get("addition_embed_type") != "text_time":
        return {"tokens": tokens}
    return {
        "tokens": tokens,
        "pooled": config["projection_class_embeddings_input_dim"] - 6 * config["addition_time_embed_dim"],
    }


UNET = Adapter("UNet2DModel", _call, _inputs)
UNET_WITH_TEXT = Adapter(
    "UNet2DConditionModel",
    _call_with_text,
    _inputs_with_text,
    takes_scale={"time_cond_proj_dim": 256},
    scale_layers=("time_embedding.cond_proj.weight",),
)

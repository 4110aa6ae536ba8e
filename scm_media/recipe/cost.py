"""Counts the cost of a recipe's networks without storage for them: 1.5 billion parameters take seconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from scm_media.build import build
from scm_media.conditioning import Conditioning
from scm_media.ema import STDS

WEIGHT_COPIES = 6
"""Copies of weights in a student's training, of four bytes each: teacher, student, average, gradient, two moments.

Averages of other lengths, which snapshots are taken of, come on top.
"""


@dataclass(frozen=True)
class Cost:
    """Latents ``(c, *s)``; parameters of one network; multiply-adds of one forward pass of one clip; bytes of a
    student's training on one device, and how many clips go through one of its passes."""

    latent_shape: tuple[int, ...]
    parameters: int
    multiply_adds: int
    training_bytes: int
    clips_a_pass: int


def count_parameters(config: Mapping[str, Any]) -> int:
    """Parameters of a composed recipe's backbone; labels, which its data decide, are left out."""
    with FakeTensorMode():
        return sum(parameter.numel() for parameter in _networks(config)[0].parameters())


def count_cost(config: Mapping[str, Any]) -> Cost:
    """The cost of a composed recipe; labels, which its data decide, are left out.

    The bytes are weights (float32, with gradient, averages, moments and the teacher's) and what the forward pass of a
    device's share of the batch keeps for the backward pass, without a compiler, PyTorch itself and the data.
    """
    with FakeTensorMode():
        backbone, latent_shape = _networks(config)
        parameters = sum(parameter.numel() for parameter in backbone.parameters())
        multiply_adds, kept = _one_clip(backbone, latent_shape, config["precision"].startswith("bf16"))
    devices = config["num_devices"] * config["num_nodes"]
    fraction = max(1, config["student"]["batch_size"] // (devices * config["trainer"]["accumulate"]))
    copies = WEIGHT_COPIES
    if config["trainer"]["snapshot_every"]:
        copies += sum(std != config["student"]["ema_std"] for std in STDS)
    return Cost(latent_shape, parameters, multiply_adds, copies * 4 * parameters + kept * fraction, fraction)


def _networks(config: Mapping[str, Any]) -> tuple[nn.Module, tuple[int, ...]]:
    """The backbone and the shape of its latents."""
    shape = tuple(
        build(config["autoencoder"]["network"], "autoencoder").latent_shape(
            build(config["modality"], "modality").shape()
        )
    )
    filled: dict[str, Any] = {"in_channels": shape[0], "labels": {}}
    missing = {key: value for key, value in filled.items() if config["backbone"].get(key, 0) is None}
    if config["conditioning"]["mask"] is not None:
        missing["num_cond_channels"] = shape[0] + 1
    return build(config["backbone"], "backbone", **missing), shape


def _one_clip(backbone: nn.Module, shape: Sequence[int], narrow: bool) -> tuple[int, int]:
    """Multiply-adds of one clip's forward pass, and the bytes that it keeps for the backward pass."""
    weights = {parameter.untyped_storage()._cdata for parameter in backbone.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}  # by address, and kept alive so that no other gets the same

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage
        return tensor

    attention = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_operations}
    with (
        FlopCounterMode(display=False, custom_mapping=attention) as counter,
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=narrow),
    ):
        backbone(torch.empty(1, *shape), torch.empty(1), Conditioning())
    return counter.get_total_flops() // 2, sum(storage.nbytes() for storage in kept.values())


def _attention_operations(q: Sequence[int], k: Sequence[int], v: Sequence[int], *_: Any, **__: Any) -> int:
    """Operations of softmax(q kᵀ) v for heads ``(B, h, L, d)``, which the counter does not know on CPUs."""
    return 2 * q[0] * q[1] * q[2] * k[2] * (q[3] + v[3])

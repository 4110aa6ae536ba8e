"""Counts what a recipe's networks cost, on networks without storage: 1.5 billion parameters take seconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_leaves

from scm_media.adapters.adapter import ADAPTERS
from scm_media.adapters.examples import random_conditioning
from scm_media.build import build
from scm_media.change_of_variables import ChangeOfVariables
from scm_media.conditioning import Conditioning
from scm_media.ema import STDS
from scm_media.nn.operations import operation_counter
from scm_media.nn.recompute import repeated_blocks
from scm_media.nn.text import random_text
from scm_media.text import find_widths

WEIGHT_COPIES = 6
"""Copies of the weights in a student's training, of four bytes each: teacher, student, EMA, gradient and two moments.

Snapshots need the EMAs of other lengths besides.
"""


@dataclass(frozen=True)
class Cost:
    """The cost of a recipe.

    latent_shape: ``(c, *s)``. parameters: of one network. multiply_adds: of one forward pass of one sample.
    training_bytes: of the student's training on one device, with samples_per_pass samples in each of its passes.
    """

    latent_shape: tuple[int, ...]
    parameters: int
    multiply_adds: int
    training_bytes: int
    samples_per_pass: int


def count_parameters(config: Mapping[str, Any]) -> int:
    """Returns the number of parameters of a composed recipe's backbone, without labels, which its data decide."""
    with torch.device("meta"):  # no operation is run: FakeTensorMode, which follows each, takes several times as long
        return _size(_networks(config)[0])


def count_cost(config: Mapping[str, Any]) -> Cost:
    """Returns the cost of a composed recipe, without labels, which its data decide.

    The bytes are weights (float32, with gradient, EMAs, moments and the teacher's) and the tensors that a forward pass
    of one device keeps for its backward pass, without those of PyTorch itself, the data, and savings of a compiler.
    Where devices divide the weights, each also has two blocks as a whole, the one that runs and the next, and the
    gradient of one. Devices that share the tokens of a sample each keep their part.
    """
    narrow, recompute = config["precision"].startswith("bf16"), config["trainer"]["gradient_checkpointing"]
    with FakeTensorMode(allow_non_fake_inputs=True):  # noise levels of a scheduler have values
        backbone, latent_shape = _networks(config)
        parameters = _size(backbone)
        blocks = [_size(block) for block in repeated_blocks(backbone)]
        multiply_adds, kept = _count_sample(backbone, latent_shape, narrow, recompute)
    devices = config["num_devices"] * config["num_nodes"]
    sharing = config["context_parallel"]
    samples = max(1, config["student"]["batch_size"] * sharing // (devices * config["trainer"]["accumulate"]))
    copies = WEIGHT_COPIES
    if config["trainer"]["snapshot_every"]:
        copies += sum(std != config["student"]["ema_std"] for std in STDS)
    held = copies * parameters
    if config["strategy"] == "fsdp":
        whole = parameters - sum(blocks) + 3 * max(blocks, default=0)
        held = -(-held // devices) + min(whole, parameters)
    return Cost(latent_shape, parameters, multiply_adds, 4 * held + kept * samples // sharing, samples)


def _size(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def _networks(config: Mapping[str, Any]) -> tuple[nn.Module, tuple[int, ...]]:
    """Returns the backbone and the shape of its latents."""
    shape = tuple(
        build(config["autoencoder"]["network"], "autoencoder").latent_shape(
            build(config["modality"], "modality").shape()
        )
    )
    filled: dict[str, Any] = {"in_channels": shape[0], "labels": {}}
    missing = {key: value for key, value in filled.items() if config["backbone"].get(key, 0) is None}
    if config["conditioning"]["mask"] is not None:
        missing["num_cond_channels"] = shape[0] + 1
    if config["text"] is not None and not config["backbone"].get("text"):
        missing |= _find_text(config["text"])
    return build(config["backbone"], "backbone", **missing), shape


def _find_text(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the backbone's key for the texts of a recipe; empty where their encoder is not there to be asked."""
    try:
        widths = find_widths(settings["encoder"])
    except ValueError:
        return {}
    return {"text": {name: widths[name] for name in settings["inputs"]}}


def _count_sample(backbone: nn.Module, shape: Sequence[int], narrow: bool, recompute: bool = False) -> tuple[int, int]:
    """Returns the multiply-adds of one sample's forward pass, and the bytes that it keeps for the backward pass.

    recompute: each block keeps its inputs alone, and the largest one is computed again in the backward pass.
    """
    weights = {parameter.untyped_storage()._cdata for parameter in backbone.parameters()}
    outside = _Kept()
    of_blocks: list[_Kept] = []
    current = [outside]

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage()._cdata not in weights:
            current[-1].add(tensor)
        return tensor

    def enter(block: nn.Module, inputs: Any) -> None:
        for each in tree_leaves(inputs):
            if isinstance(each, torch.Tensor):
                outside.add(each)
        of_blocks.append(_Kept())
        current.append(of_blocks[-1])

    def leave(block: nn.Module, inputs: Any, output: Any) -> None:
        current.pop()

    for block in repeated_blocks(backbone) if recompute else ():
        block.register_forward_pre_hook(enter)
        block.register_forward_hook(leave)
    with (
        operation_counter() as counter,
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=narrow),
    ):
        backbone(torch.empty(1, *shape), torch.empty(1), _conditioning(backbone))
    largest = max((each.size() for each in of_blocks), default=0)
    return counter.get_total_flops() // 2, outside.size() + largest


def _conditioning(backbone: nn.Module) -> Conditioning:
    """Returns the conditioning of one sample that a network cannot be called without, and its text."""
    network: Any = backbone.network if isinstance(backbone, ChangeOfVariables) else backbone
    name = type(network).__name__
    return random_conditioning(name, network.config, num=1) if name in ADAPTERS else random_text(backbone, num=1)


class _Kept:
    """The storages of tensors, each counted once; they stay alive so that no other gets the same address."""

    def __init__(self) -> None:
        self._storages: dict[int, torch.UntypedStorage] = {}

    def add(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        self._storages[storage._cdata] = storage

    def size(self) -> int:
        return sum(storage.nbytes() for storage in self._storages.values())

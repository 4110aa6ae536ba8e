"""Networks of diffusers as backbones that a configuration describes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import unset_fake_temporarily

from scm_media.adapters.adapter import ADAPTERS
from scm_media.adapters.schedulers import change_of_variables
from scm_media.bounds import COUNT
from scm_media.change_of_variables import ChangeOfVariables
from scm_media.parts import part
from scm_media.prompts import LABEL, PromptBank


@part("backbone")
def diffusers_backbone(
    network: Annotated[str, "class of the network in diffusers"],
    config: Annotated[Mapping[str, Any], "arguments of the class, as its config.json has them"],
    scheduler: Annotated[Mapping[str, Any], "scheduler_config.json, which says what the network predicts"],
    in_channels: Annotated[int | None, COUNT, "channels of the latent"] = None,
    labels: Mapping[str, int] | None = None,
    guidance: bool = False,
) -> ChangeOfVariables:
    """Returns a network of diffusers, with fresh weights, as a TrigFlow backbone.

    Its weights are named as in diffusers, below ``network``. in_channels and labels are the data's, which the network
    must fit: labels has the number of classes of each label. An attribute ``null_label`` says whether the network has
    an embedding for no label, which guidance by labels needs. guidance: the network takes a guidance scale as an input,
    beside what ``config`` says, by layers that are zero at first. Raises ValueError for classes and schedulers that are
    not known, for arguments that the class does not take, and for data that the network was not made for.
    """
    if network not in ADAPTERS:
        raise ValueError(
            f"backbone.network {network!r} is no class that can be converted: there are {', '.join(sorted(ADAPTERS))}"
        )
    try:
        import diffusers
    except ImportError as error:
        raise ValueError(
            f"{network} needs the package diffusers ({error}): pip install 'scm-media[diffusers]'"
        ) from error
    config = dict(config)
    if guidance:
        check_scale(network, config)
        config |= ADAPTERS[network].takes_scale
    try:
        with torch.device("meta"):  # a caller that bounds the size of networks refuses one before it takes memory
            getattr(diffusers, network).from_config(config)
        made = getattr(diffusers, network).from_config(config)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise ValueError(f"backbone.config: {network} of diffusers does not take it ({error})") from error
    _check_latents(network, made.config, in_channels)
    if guidance:
        for name in ADAPTERS[network].scale_layers:
            nn.init.zeros_(made.get_parameter(name))
    with unset_fake_temporarily():  # the scheduler's noise levels have values also where costs are counted
        backbone = change_of_variables(made, scheduler)
    backbone.null_label = made.null_label = _check_labels(network, made.config, labels or {})
    return backbone


def check_scale(network: str, config: Mapping[str, Any]) -> None:
    """Raises ValueError for a network that cannot be given a guidance scale as an input, or takes one already."""
    added = ADAPTERS[network].takes_scale
    if not added:
        able = ", ".join(sorted(name for name, adapter in ADAPTERS.items() if adapter.takes_scale))
        raise ValueError(
            f"student.loss.guidance_max: {network} cannot be given a guidance scale as a new input ({able} can): "
            "distil one scale, sampler.guidance, and leave guidance_max null"
        )
    if any(config.get(key) is not None for key in added):
        raise ValueError(
            f"student.loss.guidance_max: this {network} takes a guidance scale already ({', '.join(added)}), so that "
            "its teacher needs no guidance by two calls: leave guidance_max null"
        )


def attach_prompts(backbone: Any, bank: PromptBank | None) -> None:
    """Lets a backbone look its text embeddings up in a bank; does nothing for a backbone that takes none.

    Raises ValueError for embeddings that the network does not take.
    """
    if bank is None or not isinstance(backbone, ChangeOfVariables):
        return
    network: Any = backbone.network
    name = type(network).__name__
    expected = ADAPTERS[name].inputs(network.config)
    for entry in ("tokens", "pooled"):
        width, found = expected.get(entry), bank.embeddings.get(entry)
        if width is not None and (found is None or found.shape[-1] != width):
            got = "none" if found is None else f"embeddings {tuple(found.shape)}"
            raise ValueError(
                f"{name} takes {entry} of width {width}, the prompts have {got}: make them with the text encoders of "
                "the pipeline that the network came from"
            )
    backbone.prompts = bank


def _check_latents(network: str, config: Mapping[str, Any], in_channels: int | None) -> None:
    expected = ADAPTERS[network].latent_shape(config)[0]
    if in_channels not in (None, expected):
        raise ValueError(
            f"{network} takes latents of {expected} channels, but the autoencoder makes {in_channels}: choose the one "
            "that the network was trained with, or other modality.channels for a network of pixels"
        )


def _check_labels(network: str, config: Mapping[str, Any], labels: Mapping[str, int]) -> bool:
    """Returns whether the network has an embedding for no label; raises ValueError for labels that do not fit it."""
    adapter = ADAPTERS[network]
    needed = adapter.inputs(config)
    num = needed.get("label")
    if "tokens" in needed:
        labels = {name: each for name, each in labels.items() if name != LABEL}
    if len(labels) > 1 or (num is None and labels):
        takes = "no label" if num is None else f"one label of {num} classes"
        raise ValueError(f"{network} takes {takes}, the data have {', '.join(labels)}: choose with data.labels")
    if num is None or not labels:
        return "tokens" in needed
    (name, found), fitting = next(iter(labels.items())), [num] if adapter.null_label else [num, num - 1]
    if found not in fitting:
        raise ValueError(
            f"{network} has embeddings for {' or '.join(map(str, fitting))} classes, but label {name!r} of the data "
            f"has {found}: use data with the classes that the network was trained on, in the same order"
        )
    return adapter.null_label or found < num

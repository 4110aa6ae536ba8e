"""The training of a backbone on latents, as teacher, guide and student share it."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from scm_media.build import TARGET, resolve
from scm_media.data import Batch
from scm_media.guidance import parts_of
from scm_media.tangent import TangentMethod
from scm_media.training.compiling import compile_backbone
from scm_media.training.context import Context
from scm_media.training.fingerprint import full_fingerprint, stage_settings, takes_guidance_scale, takes_target
from scm_media.training.optimization import Task
from scm_media.training.previews import FlowPreview
from scm_media.training.run_folder import save_stage_weights


def backbone_config(context: Context, **differing: Any) -> dict[str, Any]:
    """Returns the recipe's backbone, with other values for some keys, and with those that follow from the data."""
    config = {**context.config["backbone"], **differing}
    if config.get("in_channels") is None:
        config["in_channels"] = context.latent_shape[0]
    if config.get("labels") is None:
        config["labels"] = context.network_classes
    if config.get("label_units", 0) is None:
        config["label_units"] = {
            name: (values[-1] - values[0]) / (math.pi / 2) or 1.0
            for name, values in context.data.label_quantiles.items()
            if name in context.network_classes
        }
    if context.text is not None:
        config["text"] = _text_widths(context, config)
    needed, layout = context.num_cond_channels, context.conditioning_layout
    if needed and config.setdefault("num_cond_channels", needed) < needed:
        reasons = ["conditioning.mask: the channels of the latent and a mask"] if layout.num_mask_channels else []
        if layout.grouping is not None:
            reasons.append(f"data.actions: the numbers of {layout.grouping.size} frames")
        raise ValueError(
            f"backbone.num_cond_channels must be at least {needed} for {' and '.join(reasons)}; got "
            f"{config['num_cond_channels']}: leave it out"
        )
    return config


def _text_widths(context: Context, config: Mapping[str, Any]) -> dict[str, int]:
    """Returns the widths of the embeddings that a backbone is given; raises ValueError where it takes none."""
    if "text" not in inspect.signature(resolve(config[TARGET])).parameters:
        raise ValueError(
            f"backbone {config[TARGET]} takes no text: set text=none, or backbone=transformer, unet or spacetime"
        )
    assert context.text is not None
    embeddings, inputs = context.text.bank.embeddings, context.config["text"]["inputs"]
    if lacking := [name for name in inputs if name not in embeddings]:
        raise ValueError(f"text.inputs: the embeddings have no {lacking[0]}; there are {', '.join(embeddings)}")
    return {name: embeddings[name].shape[-1] for name in inputs}


def student_config(context: Context) -> dict[str, Any]:
    """Returns the backbone of the student, which may take the guidance scale and the time of a flow map's end."""
    inputs = {"guidance": True} if takes_guidance_scale(context.config) else {}
    if takes_target(context.config):
        inputs["target"] = True
        _check_takes(context.config, "target", "the time that a flow map goes to")
    return backbone_config(context, **context.config["student"]["backbone"], **inputs)


def _check_takes(config: Mapping[str, Any], name: str, what: str) -> None:
    """Raises ValueError for a backbone without this input, which the student's loss needs."""
    backbone = config["backbone"][TARGET]
    if name not in inspect.signature(resolve(backbone)).parameters:
        raise ValueError(
            f"student.loss {config['student']['loss'][TARGET]} needs a network with an input for {what}, and backbone "
            f"{backbone} has none: set backbone=transformer, unet or spacetime, or loss@student.loss=consistency"
        )


class LatentInputs:
    """Maps batches to latents, or points of trajectories, and conditioning, as arguments of a loss.

    Samples are encoded by the frozen autoencoder unless they are latents already. The conditioning has the labels, the
    actions if the data has any, and a random mask if the recipe wants masks. The autoencoder moves to the batch's
    device when it has samples to encode, so that runs on latents hold no memory for it there; ``frozen``, a network
    that the loss calls, moves with the first batch.
    """

    def __init__(self, context: Context, autoencoder: Any, frozen: nn.Module | None = None) -> None:
        self.autoencoder, self.frozen = autoencoder, frozen
        self.condition, self.layout, self.text = context.condition, context.conditioning_layout, context.text
        self.latent_shape, self.has_samples = context.latent_shape, context.data.has_samples

    def __call__(self, batch: Batch) -> tuple[Any, ...]:
        if self.frozen is not None:
            self.frozen.to(batch.sample.device)
        latents = batch.sample if batch.encoded else self._encode(batch.sample)
        cond = batch.conditioning(self.autoencoder.latent_mask)
        cond = cond if self.text is None else self.text(cond)
        if (trajectory := batch.trajectory) is None:
            return latents, self.condition(latents, cond, batch.actions)
        cond = replace(cond, guidance=trajectory.guidance)
        sizes = latents.shape[2:]
        return trajectory, self.layout.assemble(cond, sizes, batch.actions, trajectory.given, trajectory.mask)

    def _encode(self, sample: Tensor) -> Tensor:
        """Returns latents ``(B, c, *s)``, zeros where the data have no samples."""
        if not self.has_samples:
            return sample.new_zeros(len(sample), *self.latent_shape)
        with torch.no_grad():
            return self.autoencoder.to(sample.device).encode(sample)


def backbone_task(
    context: Context,
    stage: str,
    loss: Any,
    config: Mapping[str, Any],
    teacher: nn.Module | None = None,
) -> Task:
    """Returns the training of ``loss.backbone``, which ``config`` describes.

    teacher: the frozen network that a student learns from, or that its sheets show beside it.
    """
    called = None if getattr(loss, "teacher", None) is None else teacher
    return Task(
        name=stage,
        loss=loss,
        model=loss.backbone,
        settings=stage_settings(context.config, stage),
        inputs=LatentInputs(context, context.load_trained("autoencoder"), called),
        finish=save_stage_weights(context, stage, config),
        preview=FlowPreview(
            context, stage in ("warm_start", "student"), teacher, stage == "student" and takes_target(context.config)
        ),
        separate_clip=learned_weight(loss),
        auxiliary=auxiliary_network(loss),
        training_fingerprint=full_fingerprint(context, stage),
        shardable=True,
        snapshots=stage not in ("guide", "warm_start"),
        frozen=teacher,
        compile=_compilation(context, loss, teacher) if context.config["trainer"]["compile"] else None,
    )


def learned_weight(loss: nn.Module) -> list[nn.Module]:
    """Returns a loss's learned weighting, whose gradients are clipped apart, if it has one."""
    weight = getattr(loss, "weight", None)
    return [] if weight is None else [weight]


def auxiliary_network(loss: Any) -> tuple[nn.Module, float] | None:
    """Returns the network that a loss trains beside its backbone, and its rate in units of the backbone's."""
    network = getattr(loss, "auxiliary", None)
    return None if network is None else (network, loss.auxiliary_rate)


def compile_for(context: Context, backbone: nn.Module, device: torch.device, method: TangentMethod | None) -> None:
    """Compiles a backbone for the latents of a run; method: None for a frozen one, whose value alone is used."""
    precision, num_cond_channels = context.config["precision"], context.num_cond_channels
    compile_backbone(
        backbone, context.latent_shape, context.network_classes, precision, method, device, num_cond_channels
    )


def _compilation(context: Context, loss: Any, teacher: nn.Module | None) -> Callable[[], None]:
    """Returns a function that compiles the networks of a stage."""
    auxiliary = getattr(loss, "auxiliary", None)
    beside = (*parts_of(teacher), *parts_of(auxiliary))
    tangent = None if getattr(loss, "uses_trajectories", False) else context.tangent_method
    read = getattr(loss, "read_network", None)  # a compiled network would not call the hooks that read its features

    def compile_networks() -> None:
        compile_for(context, loss.backbone, context.device, tangent)
        for network in beside:
            if network is not read:
                compile_for(context, network, context.device, None)

    return compile_networks

"""The stages feature extractor, teacher, guide and student: what each one trains and what it leaves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from scm_media import weights
from scm_media.build import build
from scm_media.conditioning import NO_LABEL
from scm_media.data import Batch
from scm_media.guidance import Guided
from scm_media.training.compiling import compile_backbone
from scm_media.training.context import Context
from scm_media.training.ema_selection import holds_chosen
from scm_media.training.loop import Task
from scm_media.training.previews import FlowPreview
from scm_media.training.training_fingerprint import by_input, model_fingerprint, stage_settings


class ClassificationLoss(nn.Module):
    """Cross entropy of a classifier, averaged over its labels; those that are not given (``NO_LABEL``) count nothing.

    A network with a method ``pose(sample, labels) -> (sample, labels)`` is trained on what that makes of each batch, so
    that it can set itself tasks whose answers are known (the order of frames) beside the labels of the data.
    """

    def __init__(self, network: nn.Module, smoothing: float = 0.05) -> None:
        super().__init__()
        self.network, self.smoothing = network, smoothing

    def forward(self, sample: Tensor, labels: Mapping[str, Tensor], step: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss over samples ``(B, C, *S)``; terms: loss and accuracy of each clip."""
        pose: Any = getattr(self.network, "pose", None)
        if pose is not None:
            sample, labels = pose(sample, labels)
        losses, hits, given = [], [], []
        for name, scores in self.network(sample).items():
            wanted = labels[name]
            losses.append(
                nnf.cross_entropy(
                    scores.float(), wanted, reduction="none", label_smoothing=self.smoothing, ignore_index=NO_LABEL
                )
            )
            hits.append((scores.argmax(-1) == wanted).float())
            given.append((wanted != NO_LABEL).float())
        num = torch.stack(given).sum(0).clamp(min=1)
        loss = torch.stack(losses).sum(0) / num
        return loss.mean(), {"loss": loss.detach(), "accuracy": torch.stack(hits).sum(0) / num}


def feature_extractor_task(context: Context) -> Task:
    """The feature network that figures are measured in, trained to tell the labels."""
    settings = dict(context.config["feature_extractor"])
    config = {**settings.pop("network"), "labels": context.num_classes}
    network = build(config, "feature_extractor")
    context.start_from(network, "feature_extractor")
    settings = {"warmup_steps": 0, "decay": "cosine", "ema_std": 0.05} | settings

    def inputs(batch: Batch) -> tuple[Any, ...]:
        return batch.sample, batch.labels

    return Task(
        name="feature_extractor",
        loss=ClassificationLoss(network),
        model=network,
        settings=settings,
        inputs=inputs,
        finish=_finish(context, "feature_extractor", config),
        training_fingerprint=context.training_fingerprint("feature_extractor"),
        precision="32-true",  # what figures are measured in hangs on no recipe's precision
    )


def teacher_task(context: Context) -> Task:
    """The diffusion teacher."""
    return _diffusion_task(context, "teacher", context.backbone_config())


def guide_task(context: Context) -> Task:
    """The network that the teacher is steered away from: smaller, or trained for less (autoguidance)."""
    return _diffusion_task(context, "guide", context.backbone_config(**context.config["guide"]["backbone"]))


def _diffusion_task(context: Context, stage: str, config: dict[str, Any]) -> Task:
    backbone = build(config, "backbone")
    context.start_from(backbone, stage)
    settings = stage_settings(context.config, stage)
    loss = build(settings["loss"], "loss", backbone=backbone, flow=context.flow)
    return Task(
        name=stage,
        loss=loss,
        model=backbone,
        settings=settings,
        inputs=_Latents(context),
        finish=_finish(context, stage, config),
        preview=FlowPreview(context),
        separate_clip=_weight_parameters(loss),
        training_fingerprint=context.training_fingerprint(stage),
        snapshots=stage == "teacher",
        compile=_compilation(context, backbone),
    )


def student_task(context: Context) -> Task:
    """The consistency model: by the teacher's velocity (scd) or the data's (sct), from the teacher's weights on."""
    settings = context.config["student"]
    objective = settings["objective"]
    if objective not in ("scd", "sct"):
        raise ValueError(f"student.objective must be scd or sct, got {objective!r}")
    has_teacher = context.weights_file("teacher").exists()
    teacher = context.guided_teacher() if objective == "scd" else None
    if objective == "sct" and has_teacher:  # what it starts from, and is shown beside
        teacher = context.trained("teacher")
    config = context.backbone_config(**settings["backbone"], **({"guidance": True} if by_input(context.config) else {}))
    backbone = build(config, "backbone")
    if context.start is not None and context.start.has("student"):
        context.start_from(backbone, "student")
    elif teacher is not None:
        file = context.weights_file("teacher")
        # What the student has beyond its teacher is the input of the scale, which starts at saying nothing.
        own = {name: value for name, value in backbone.state_dict().items() if name.startswith("guidance.")}
        weights.load_into(backbone, {**own, **weights.read(file).state}, file)
    loss = build(
        settings["loss"], "loss", backbone=backbone, teacher=teacher if objective == "scd" else None, flow=context.flow
    )
    return Task(
        name="student",
        loss=loss,
        model=backbone,
        settings=settings,
        inputs=_Latents(context, frozen=teacher),
        finish=_finish(context, "student", config),
        preview=FlowPreview(context, student=True, teacher=teacher),
        separate_clip=_weight_parameters(loss),
        training_fingerprint=context.training_fingerprint("student"),
        snapshots=True,
        compile=_compilation(context, backbone, frozen=teacher),
    )


def _compilation(context: Context, backbone: nn.Module, frozen: nn.Module | None = None) -> Callable[[], None] | None:
    """What compiles the networks of a stage, of a frozen one the value alone; None where the recipe wants none."""
    if not context.config["trainer"]["compile"]:
        return None
    shape, classes = context.latent_shape, context.num_classes
    precision, device, told = context.config["precision"], context.device, context.num_cond_channels

    def compile_networks() -> None:
        compile_backbone(backbone, shape, classes, precision, context.tangent_method, device, told)
        networks = (frozen.backbone, frozen.guide) if isinstance(frozen, Guided) else (frozen,)
        for network in networks:
            if isinstance(network, nn.Module):
                compile_backbone(network, shape, classes, precision, None, device, told)

    return compile_networks


class _Latents:
    """Batches to latents and conditioning, by the frozen autoencoder where they are not encoded already.

    The conditioning has the actions of each sample where the data has them, and a random mask where the recipe asks for
    one. Frozen networks follow the batch's device.
    """

    def __init__(self, context: Context, frozen: nn.Module | None = None) -> None:
        self.autoencoder, self.frozen = context.autoencoder(), frozen
        self.condition = context.condition

    def __call__(self, batch: Batch) -> tuple[Any, ...]:
        device = batch.sample.device
        self.autoencoder.to(device)
        if self.frozen is not None:
            self.frozen.to(device)
        with torch.no_grad():
            latents = batch.sample if batch.encoded else self.autoencoder.encode(batch.sample)
        cond = batch.conditioning(self.autoencoder.latent_mask)
        return latents, self.condition(latents, cond, batch.actions)


def _weight_parameters(loss: nn.Module) -> list[nn.Parameter]:
    weight = getattr(loss, "weight", None)
    return [] if weight is None else list(weight.parameters())


def _finish(context: Context, stage: str, config: dict[str, Any]) -> Callable[[dict[str, Tensor], int], None]:
    file: Path = context.weights_file(stage)
    info = {"recipe": context.config["recipe"], **model_fingerprint(context.config, stage)}

    def finish(state: dict[str, Tensor], step: int) -> None:
        if not holds_chosen(file, step):
            weights.save(file, state, config, {**info, "step": step})

    return finish

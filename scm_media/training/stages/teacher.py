"""The stages ``teacher`` and ``guide``: diffusion models trained on latents."""

from __future__ import annotations

from typing import Any

from scm_media.build import build
from scm_media.training.context import Context
from scm_media.training.fingerprint import stage_settings
from scm_media.training.optimization import Task
from scm_media.training.stages.backbones import backbone_config, backbone_task


def teacher_task(context: Context) -> Task:
    """Returns the training of the teacher."""
    return _diffusion_task(context, "teacher", backbone_config(context))


def guide_task(context: Context) -> Task:
    """Returns the training of the autoguidance model: a teacher that is smaller, or trained for less."""
    return _diffusion_task(context, "guide", backbone_config(context, **context.config["guide"]["backbone"]))


def _diffusion_task(context: Context, stage: str, config: dict[str, Any]) -> Task:
    backbone = context.build_backbone(config)
    context.load_start(backbone, stage)
    settings = stage_settings(context.config, stage)
    loss = build(settings["loss"], "loss", backbone=backbone, flow=context.flow)
    return backbone_task(context, stage, loss, config)

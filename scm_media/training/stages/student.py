"""The stage ``student``: a consistency model, distilled from the teacher (scd) or trained from data (sct)."""

from __future__ import annotations

from typing import Any

from scm_media import weights
from scm_media.build import build
from scm_media.guidance import Guided
from scm_media.training.context import Context
from scm_media.training.fingerprint import takes_guidance_scale
from scm_media.training.optimization import Task
from scm_media.training.stages.backbones import backbone_task, student_config


def student_task(context: Context) -> Task:
    """Returns the training of the student, which starts from the teacher's weights or from those of ``init_from``."""
    settings = context.config["student"]
    objective = settings["objective"]
    file = context.weights_file("teacher")
    teacher = guided_teacher(context) if objective == "scd" else None
    if objective == "sct" and file.exists():  # for its weights and for the sheets
        teacher = context.load_trained("teacher")
    config = student_config(context)
    backbone = build(config, "backbone")
    if context.start is not None and context.start.has("student"):
        context.load_start(backbone, "student")
    elif teacher is not None:
        # The teacher lacks the input of the guidance scale, which has no effect at first.
        own = {name: value for name, value in backbone.state_dict().items() if name.startswith("guidance.")}
        weights.load_into(backbone, {**own, **weights.read(file).state}, file)
    distilled = teacher if objective == "scd" else None
    loss = build(settings["loss"], "loss", backbone=backbone, teacher=distilled, flow=context.flow)
    return backbone_task(context, "student", loss, config, teacher)


def guided_teacher(context: Context) -> Any:
    """Returns the trained teacher as it is sampled and distilled: guided by its guide, or by label dropout.

    The guidance scale is the recipe's, or that of each sample where the student takes scales as an input. Raises
    ValueError when a stage has not run, and as ``check_guidance``.
    """
    check_guidance(context)
    teacher, sampler = context.load_trained("teacher"), context.config["sampler"]
    scale = None if takes_guidance_scale(context.config) else sampler["guidance"]
    if scale == 1:
        return teacher
    guide = None if context.config["guide"] is None else context.load_trained("guide")
    return Guided(teacher, scale, sampler["guidance_interval"], guide)


def check_guidance(context: Context) -> None:
    """Raises ValueError for guidance scales that the teacher cannot be guided by."""
    student, scale = context.config["student"], context.config["sampler"]["guidance"]
    highest = student["loss"].get("guidance_max")
    if highest is not None and student["objective"] != "scd":
        raise ValueError(
            f"student.loss.guidance_max {highest} needs a teacher, whose guidance is distilled: set "
            "student.objective=scd, or leave it null"
        )
    if highest is not None and not highest > 1:
        raise ValueError(f"student.loss.guidance_max must be above 1, or null for no scale as an input; got {highest}")
    if highest is not None and not 1 <= scale <= highest:
        raise ValueError(
            f"sampler.guidance {scale}, the scale of samples, must lie in [1, {highest}], the scales that the student "
            "is trained for (student.loss.guidance_max)"
        )
    if student["objective"] != "scd" or (scale == 1 and highest is None) or context.config["guide"] is not None:
        return
    key = f"sampler.guidance {scale}" if highest is None else f"student.loss.guidance_max {highest}"
    if not context.num_classes:
        raise ValueError(
            f"{key}: the data has no labels, so the teacher has nothing to be steered away from; leave guidance out, "
            "or describe a guide (autoguidance)"
        )
    if not context.config["teacher"]["loss"].get("label_dropout"):
        raise ValueError(
            f"{key}: the teacher has nothing to be steered away from; train it with teacher.loss.label_dropout=0.1, "
            "or describe a guide (autoguidance)"
        )

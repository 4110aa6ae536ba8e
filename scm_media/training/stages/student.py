"""The stages ``warm_start`` and ``student``: a consistency model, distilled from the teacher or trained from data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import nn

from scm_media import weights
from scm_media.adapters import ADAPTERS, LoRA, LoRAStudent
from scm_media.adapters.backbone import check_scale
from scm_media.adapters.lora_files import describe_lora
from scm_media.build import TARGET, build, resolve
from scm_media.change_of_variables import ChangeOfVariables
from scm_media.guidance import Guided
from scm_media.settings.sampling import first_sigma
from scm_media.training.context import Context
from scm_media.training.fingerprint import measures_error, stage_settings, takes_guidance_scale, takes_target
from scm_media.training.optimization import Task
from scm_media.training.stages.backbones import backbone_task, student_config


def student_task(context: Context) -> Task:
    """Returns the training of the student.

    It starts from the recipe's warm start, which comes from this run's teacher; without one from the student of
    ``init_from``, or else from the teacher's weights.
    """
    settings = context.config["student"]
    objective = settings["objective"]
    if objective == "scd":
        backbone, teacher, config = begin_student(context)
    else:
        config, teacher = student_config(context), None
        backbone = context.build_backbone(config)
        if context.weights_file("teacher").exists():  # for its weights and for the sheets
            teacher = frozen_teacher(context)
            load_teacher(context, backbone)
    if context.config["warm_start"] is not None:
        weights.load_into(backbone, context.trained_weights("warm_start").state, context.weights_file("warm_start"))
    elif context.start is not None and context.start.has("student"):
        context.load_start(backbone, "student")
    loss = _make_loss(context, settings, backbone, teacher if objective == "scd" else None)
    return backbone_task(context, "student", loss, config, teacher)


def warm_start_task(context: Context) -> Task:
    """Returns the training that the student starts from: a regression on the ends of the teacher's trajectories."""
    settings = stage_settings(context.config, "warm_start")
    backbone, teacher, config = begin_student(context)
    loss = _make_loss(context, settings, backbone, teacher)
    return backbone_task(context, "warm_start", loss, config, teacher)


def _make_loss(context: Context, settings: Mapping[str, Any], backbone: nn.Module, teacher: Any) -> nn.Module:
    """Returns a student's loss, whose times end where the student's sampling starts."""
    loss: Any = build(settings["loss"], "loss", backbone=backbone, teacher=teacher, flow=context.flow)
    sigma = first_sigma(context.config["sampler"])
    if sigma is not None:
        loss.limit_times(sigma)
    return cast(nn.Module, loss)


def begin_student(context: Context) -> tuple[Any, Any, dict[str, Any]]:
    """Returns a student with the teacher's weights, the guided teacher, and the configuration of the student's file."""
    settings = context.config["student"]["lora"]
    if settings is None:
        config = student_config(context)
        backbone, teacher = context.build_backbone(config), guided_teacher(context)
        load_teacher(context, backbone)
        return backbone, teacher, config
    check_guidance(context)
    base = frozen_teacher(context)
    if not isinstance(base, ChangeOfVariables):
        raise ValueError(
            f"student.lora needs a teacher of diffusers, got {type(base).__name__}: set student.lora=null, or take one "
            "by teacher_from"
        )
    null_label, student = base.null_label, LoRAStudent(base, LoRA(**settings))
    return student, _guided(context, student.teacher, null_label), describe_lora(student)


def check_lora(config: Mapping[str, Any]) -> None:
    """Raises ValueError for keys of a LoRA student that only a student with weights of its own can follow."""
    student = config["student"]
    if student["lora"] is None:
        return
    given = [
        key
        for key, differs in {
            "student.backbone": bool(student["backbone"]),
            "student.loss.guidance_max": student["loss"].get("guidance_max") is not None,
            "student.objective": student["objective"] != "scd",
            "student.loss, of a flow map,": takes_target(config),
            "trainer.compile": config["trainer"]["compile"],
        }.items()
        if differs
    ]
    if given:
        raise ValueError(
            f"student.lora shares the teacher's network, which {', '.join(given)} would change: leave that out, or set "
            "student.lora=null"
        )


def load_teacher(context: Context, backbone: nn.Module) -> None:
    """Loads the teacher's weights into a student, whose inputs beyond the teacher's have no effect at first."""
    state, file = backbone.state_dict(), context.weights_file("teacher")
    own = {name: value for name, value in state.items() if name.startswith(added_inputs(backbone))}
    weights.load_into(backbone, {**own, **context.trained_weights("teacher").state}, file)


def added_inputs(backbone: nn.Module) -> tuple[str, ...]:
    """Returns what the names of the layers begin with that embed a guidance scale, or the time of a flow map's end."""
    if not isinstance(backbone, ChangeOfVariables):
        return ("guidance.", "target.")
    adapter = ADAPTERS.get(type(backbone.network).__name__)
    return () if adapter is None else tuple(f"network.{name}" for name in adapter.scale_layers)


def frozen_teacher(context: Context) -> Any:
    """Returns the trained teacher with weights of ``trainer.teacher_dtype``; ValueError where it cannot have them."""
    teacher, dtype = context.load_trained("teacher"), context.config["trainer"]["teacher_dtype"]
    if dtype == "float32":
        return teacher
    if not isinstance(teacher, ChangeOfVariables):
        raise ValueError(
            f"trainer.teacher_dtype {dtype} needs a teacher of diffusers, got {type(teacher).__name__}: leave it at "
            "float32"
        )
    return teacher.to(getattr(torch, dtype))


def guided_teacher(context: Context) -> Any:
    """Returns the trained teacher as it is sampled and distilled: guided by its guide, or by label dropout.

    The guidance scale is the recipe's, or that of each sample where the student takes scales as an input. Raises
    ValueError when a stage has not run, and as ``check_guidance``.
    """
    check_guidance(context)
    teacher = frozen_teacher(context)
    return _guided(context, teacher, getattr(teacher, "null_label", True))


def _guided(context: Context, teacher: Any, null_label: bool) -> Any:
    sampler = context.config["sampler"]
    scale = None if takes_guidance_scale(context.config) else sampler["guidance"]
    if scale == 1:
        return teacher
    guide = None if context.config["guide"] is None else context.load_trained("guide")
    if guide is None and not null_label:
        raise ValueError(
            f"sampler.guidance {scale}: the network of {context.config['teacher_from']} has no embedding for no label, "
            "so it has nothing to be steered away from; set sampler.guidance=1"
        )
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
    of_matching = student["loss"].get("matching_guidance")
    if of_matching is not None and (not of_matching >= 0 or highest is not None or scale == 1):
        raise ValueError(
            f"student.loss.matching_guidance {of_matching} must be a scale of at least 0, and needs a teacher that is "
            f"guided at one scale, got sampler.guidance {scale} and student.loss.guidance_max {highest}: leave it null"
        )
    network = context.config["backbone"].get("network")
    if highest is not None and network in ADAPTERS:
        check_scale(network, context.config["backbone"]["config"])
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


def check_first_sigma(config: Mapping[str, Any]) -> None:
    """Raises ValueError for times and losses that ``sampler.first_sigma`` does not leave room for."""
    sampler = config["sampler"]
    sigma = first_sigma(sampler)
    if sigma is None:
        return
    latest = build(config["flow"], "flow").time_from_sigma(sigma)
    times = {"sampler.second_time": sampler["second_time"]}
    for stage in ("warm_start", "student"):
        if config[stage] is None:
            continue
        loss = stage_settings(config, stage)["loss"]
        if not hasattr(resolve(loss[TARGET]), "limit_times"):
            raise ValueError(
                f"sampler.first_sigma {sigma:g} needs a loss whose times it can limit (scm_media.losses.FlowLoss), got "
                f"{stage}.loss {loss[TARGET]}: set sampler.first_sigma={sampler['sigma_max']:g} for no limit"
            )
        if "later_times" in loss:
            times[f"{stage}.loss.later_times"] = loss["later_times"][0]
    if too_late := [f"{key} {time:g}" for key, time in times.items() if not time < latest]:
        raise ValueError(
            f"{' and '.join(too_late)} must lie below {latest:.4f}, the time of the noise level {sigma:g} that the "
            "student's sampling starts from (sampler.first_sigma)"
        )


def check_gamma(config: Mapping[str, Any]) -> None:
    """Raises ValueError for ``sampler.gamma`` where the student is no flow map."""
    gamma = config["sampler"].get("gamma")
    if gamma is not None and not takes_target(config):
        name = config["student"]["loss"][TARGET].rpartition(".")[2]
        raise ValueError(
            f"sampler.gamma {gamma:g} is the noise between the steps of a flow map, and {name} trains none: leave it "
            "null, or set loss@student.loss=mean_flow or flow_map"
        )


def check_patience(config: Mapping[str, Any]) -> None:
    """Raises ValueError for ``student.patience`` where the student's loss does not tell better weights from worse."""
    patience = config["student"].get("patience")
    if patience is not None and not measures_error(config, "student"):
        name = config["student"]["loss"][TARGET].rpartition(".")[2]
        raise ValueError(
            f"student.patience {patience}: the value of {name} on held-out data does not fall as samples get better, "
            "so it cannot tell when to stop; set student.patience=null, and compare students by scm-media evaluate"
        )

"""How a model samples: its solver and times, and the guidance that its networks can be steered by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from torch import Tensor

from scm_media.pipeline.folder import ModelFolder
from scm_media.samplers import (
    SAMPLERS,
    check_times,
    consistency_times,
    edit_times,
    sample_consistency,
    teacher_times,
)
from scm_media.trigflow import TrigFlow

EDIT_STEPS = 16
"""Of a student that was not trained to know a part of its clips: see ``samplers.edit_times``."""

Run = partial[Tensor]
"""A sampler with its times: ``(backbone, flow, noise, cond=…)`` to latents; a student's also takes start, constrain."""


def teacher_sampler(
    settings: Mapping[str, Any], flow: TrigFlow, steps: int | None, times: Sequence[float] | None
) -> Run:
    """The teacher's solver; steps and times are the model's own where None. ValueError for neither being possible."""
    solver = SAMPLERS.find(settings.get("teacher", "heun"), "sampler.teacher")
    if times is None:
        num_steps = settings.get("teacher_steps", 32) if steps is None else steps
        times = teacher_times(num_steps, flow, sigma_max=settings.get("sigma_max", 80.0))
    return partial(solver, times=tuple(times))


def student_sampler(
    settings: Mapping[str, Any], flow: TrigFlow, steps: int | None, times: Sequence[float] | None
) -> Run:
    """The student's steps; their number and times are the model's own where None. ValueError for what cannot be."""
    if times is None:
        num_steps = settings.get("steps", 2) if steps is None else steps
        times = (settings.get("times") or {}).get(str(num_steps)) or consistency_times(
            num_steps, flow, settings.get("sigma_max", 80.0), settings.get("second_time", 1.1)
        )
    check_times(times)
    return partial(sample_consistency, times=tuple(times))


def edit_sampler(
    settings: Mapping[str, Any], flow: TrigFlow, steps: int | None, times: Sequence[float] | None, trained: bool
) -> Run:
    """The student's steps where a part of the clip is known: as ever where it was trained for that, else more."""
    if times is None and not trained:
        times = edit_times(EDIT_STEPS if steps is None else steps, flow, settings.get("sigma_max", 80.0))
    return student_sampler(settings, flow, steps, times)


def scales(
    folder: ModelFolder, settings: Mapping[str, Any], teacher: bool, guidance: float | None
) -> tuple[float | None, float]:
    """The scale that a network takes as an input (None: it takes none), and the one it is guided by in two calls.

    guidance: None for the model's own. Raises ValueError for a scale that the network cannot be guided by.
    """
    description = folder.description
    highest = description.get("guidance_max")
    scale = guidance
    if scale is None:  # a student that takes no scale has its teacher's guidance in it already
        scale = 1.0 if not teacher and highest is None else settings.get("guidance", 1.0)
    if not teacher and highest is not None:
        if not 1 <= scale <= highest:
            raise ValueError(f"guidance must lie in [1, {highest}], what the student was trained for, got {scale}")
        return scale, 1.0
    if teacher and folder.has("guide"):
        return None, scale
    if scale != 1 and not description["labels"]:
        raise ValueError(f"the model was trained without labels, so guidance {scale} has nothing to steer by")
    name = "teacher" if teacher else "student"
    if scale != 1 and description.get("label_dropout" if teacher else "student_label_dropout") == 0:
        by_input = "" if teacher else " or student.loss.guidance_max=2"
        raise ValueError(
            f"the {name} never saw a clip without its label (label_dropout 0), so guidance {scale} has nothing to "
            f"steer away from; train with {name}.loss.label_dropout=0.1{by_input}, or leave guidance out"
        )
    return None, scale


def guidance_interval(
    settings: Mapping[str, Any], asked: Sequence[float] | None, scale: float
) -> tuple[float, float] | None:
    """The interval that guidance by two calls is kept to: what is asked for, else the model's own.

    Raises ValueError for one that is no pair, or has no guidance to keep in bounds.
    """
    if asked is not None and scale == 1:
        raise ValueError(
            f"guidance_interval {tuple(asked)} keeps nothing in bounds: there is no guidance by two calls here; "
            "give a guidance scale, or leave the interval out"
        )
    interval = settings.get("guidance_interval") if asked is None else asked
    if interval is None:
        return None
    if len(interval) != 2:
        raise ValueError(f"guidance_interval must be (low, high) in radians, got {tuple(interval)}")
    return float(interval[0]), float(interval[1])

"""Chooses the sampler, its times and the guidance for a request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from torch import Tensor

from scm_media.flow_map_sampler import sample_flow_map
from scm_media.pipeline.description import SamplerSettings
from scm_media.pipeline.model_folder import ModelFolder
from scm_media.pipeline.requests import SamplingRequest
from scm_media.samplers import (
    SAMPLERS,
    check_times,
    consistency_times,
    edit_times,
    sample_consistency,
    teacher_times,
)
from scm_media.trigflow import TrigFlow

FEW_STEPS = (1, 2, 4)
"""Numbers of steps whose times exports state."""
EDIT_STEPS = 16
"""Steps of an edit by a student that was not trained with masks: see ``samplers.edit_times``."""

PartialSampler = partial[Tensor]
"""A sampler with its times: ``(backbone, flow, noise, cond=…)`` to latents; an edit's also takes start, constrain."""


@dataclass(frozen=True)
class Guidance:
    """Describes the guidance of a network.

    as_input: the scale that the network takes as an input; None for a network that takes none.
    scale: the scale of guidance by two network calls; 1 is none. interval: times (low, high) in radians that these
    calls are limited to; None for all times.
    """

    as_input: float | None
    scale: float
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class SamplingMethod:
    """The samplers and the guidance of one request.

    sampler: samples from noise alone. edit_sampler: samples when a part of the latent is given. negative: a text that
    the teacher is steered away from; None for no text.
    """

    teacher: bool
    sampler: PartialSampler
    edit_sampler: PartialSampler
    guidance: Guidance
    negative: str | None = None

    @property
    def num_steps(self) -> int:
        """Returns the number of steps; a teacher's times end with the one that its last step arrives at."""
        return len(self.sampler.keywords["times"]) - self.teacher

    @classmethod
    def choose(
        cls, folder: ModelFolder, settings: SamplerSettings, flow: TrigFlow, request: SamplingRequest
    ) -> SamplingMethod:
        """Returns the method of a request; raises ValueError for anything that the model cannot do."""
        steps, times = request.steps, request.times
        if request.teacher:
            sampler = edit_sampler = choose_teacher_sampler(settings, flow, steps, times, request.sampler)
        elif request.sampler is not None:
            raise ValueError(f"sampler {request.sampler!r} is for the teacher, and the student is sampled: set teacher")
        else:
            sampler = choose_student_sampler(settings, flow, steps, times)
            edit_sampler = choose_edit_sampler(settings, flow, steps, times, bool(folder.description.mask))
        guidance = choose_guidance(folder, settings, request)
        if request.negative is not None:
            _check_negative(folder, request, guidance)
        return cls(request.teacher, sampler, edit_sampler, guidance, request.negative)


def _check_negative(folder: ModelFolder, request: SamplingRequest, guidance: Guidance) -> None:
    """Raises ValueError where nothing is steered away from a text."""
    if folder.description.text is None:
        raise ValueError(
            "the model takes no text, so it cannot be steered away from one: leave negative (--negative) out"
        )
    if not request.teacher:
        raise ValueError(
            "a negative prompt needs two network calls a step, which the student has learned to do without: leave "
            "negative (--negative) out, or sample the teacher (--teacher)"
        )
    if folder.has("guide"):
        raise ValueError(
            "the teacher is steered away from a weaker network, its guide: leave negative (--negative) out"
        )
    if guidance.scale == 1:
        raise ValueError("guidance 1 is none, so nothing is steered away from negative: give a guidance scale above 1")


def choose_teacher_sampler(
    settings: SamplerSettings,
    flow: TrigFlow,
    steps: int | None = None,
    times: Sequence[float] | None = None,
    name: str | None = None,
) -> PartialSampler:
    """Returns the teacher's sampler; steps, times and name are the model's own where None."""
    if times is None:
        times = teacher_times(settings.teacher_steps if steps is None else steps, flow, sigma_max=settings.sigma_max)
    return partial(SAMPLERS.find(settings.teacher if name is None else name, "sampler"), times=tuple(times))


def choose_student_sampler(
    settings: SamplerSettings, flow: TrigFlow, steps: int | None = None, times: Sequence[float] | None = None
) -> PartialSampler:
    """Returns the student's sampler; steps and times are the model's own where None. Raises ValueError for bad ones."""
    if times is None:
        num_steps = settings.steps if steps is None else steps
        times = (settings.times or {}).get(str(num_steps)) or consistency_times(
            num_steps, flow, settings.student_sigma, settings.second_time
        )
    check_times(times)
    if settings.gamma is None:
        return partial(sample_consistency, times=tuple(times))
    return partial(sample_flow_map, times=tuple(times), gamma=settings.gamma)


def student_times(settings: SamplerSettings, flow: TrigFlow) -> dict[int, tuple[float, ...]]:
    """Returns the student's times of 1, 2 and 4 steps, and of the model's own number of steps."""
    numbers = sorted({*FEW_STEPS, settings.steps})
    return {steps: choose_student_sampler(settings, flow, steps).keywords["times"] for steps in numbers}


def choose_edit_sampler(
    settings: SamplerSettings, flow: TrigFlow, steps: int | None, times: Sequence[float] | None, trained: bool
) -> PartialSampler:
    """Returns the student's sampler for edits; trained: with masks. A student without masks takes more steps.

    A flow map is sampled by consistency steps, because what is given is known at the data alone.
    """
    settings = replace(settings, gamma=None)
    if times is None and not trained:
        times = edit_times(EDIT_STEPS if steps is None else steps, flow, settings.student_sigma)
    return choose_student_sampler(settings, flow, steps, times)


def choose_guidance(folder: ModelFolder, settings: SamplerSettings, request: SamplingRequest) -> Guidance:
    """Returns the guidance of a request; raises ValueError for a scale or interval that the network cannot use."""
    guidance = _choose_scale(folder, settings, request)
    interval = request.guidance_interval
    if interval is not None and guidance.scale == 1:
        raise ValueError(
            f"guidance_interval {tuple(interval)} limits nothing: there is no guidance by two calls here; "
            "give a guidance scale, or leave the interval out"
        )
    interval = settings.guidance_interval if interval is None else interval
    if interval is None:
        return guidance
    if len(interval) != 2:
        raise ValueError(f"guidance_interval must be (low, high) in radians, got {tuple(interval)}")
    return Guidance(guidance.as_input, guidance.scale, (float(interval[0]), float(interval[1])))


def _choose_scale(folder: ModelFolder, settings: SamplerSettings, request: SamplingRequest) -> Guidance:
    description, teacher, scale = folder.description, request.teacher, request.guidance
    highest = description.guidance_max
    if scale is None:  # a student that takes no scale has its teacher's guidance in it already
        scale = 1.0 if not teacher and highest is None else settings.guidance
    if not teacher and highest is not None:
        if not 1 <= scale <= highest:
            raise ValueError(f"guidance must lie in [1, {highest}], what the student was trained for, got {scale}")
        return Guidance(scale, 1.0)
    if scale == 1 or (teacher and folder.has("guide")):
        return Guidance(None, scale)
    if not description.labels:
        raise ValueError(f"the model was trained without labels, so guidance {scale} has nothing to steer by")
    if (description.label_dropout if teacher else description.student_label_dropout) == 0:
        name, by_input = ("teacher", "") if teacher else ("student", " or student.loss.guidance_max=2")
        raise ValueError(
            f"the {name} never saw a sample without its label (label_dropout 0), so guidance {scale} has nothing to "
            f"steer away from; train with {name}.loss.label_dropout=0.1{by_input}, or leave guidance out"
        )
    return Guidance(None, scale)

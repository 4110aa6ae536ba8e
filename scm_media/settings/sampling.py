"""The settings of a model's sampler, in recipes and in ``model.json``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

from scm_media.bounds import FRACTION, NOT_NEGATIVE, SAMPLING_STEPS, SECOND_TIME, SIGMA_MAX, TIME
from scm_media.typed import Words, show


class Interval:
    """The constraint of two times that rise."""

    def problem(self, value: Any, key: str) -> str | None:
        """Returns in a sentence what is wrong with the interval; None if nothing is."""
        if len(value) == 2 and value[0] < value[1]:
            return None
        return f"{key} must be [low, high] in radians within [0, π/2], or null for all times, got {show(value)}"


class StepsToTimes:
    """The constraint of sampling times by the number of steps; numbers are texts in JSON."""

    words = "steps to as many times in radians, as in {2: [1.5645, 0.9]}"

    def problem(self, value: Any, key: str) -> str | None:
        """Returns in a sentence what is wrong with the mapping; None if nothing is."""
        if all(str(steps).isdecimal() and 1 <= len(times) <= SAMPLING_STEPS.high for steps, times in value.items()):
            return None
        return f"{key} must be {self.words}, got {show(value)}"


class SamplerName:
    """The constraint of a name of a registered sampler."""

    def problem(self, value: Any, key: str) -> str | None:
        """Returns in a sentence that there is no such sampler; None if there is one."""
        from scm_media.samplers import SAMPLERS  # imports torch, which printing and copying recipes does without

        try:
            SAMPLERS.find(value, key)
        except ValueError as error:
            return str(error)
        return None


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """The defaults by which a trained model samples."""

    steps: Annotated[int, SAMPLING_STEPS, "steps of the student"] = 2
    second_time: Annotated[float, SECOND_TIME, "time of the student's second step"] = 1.1
    sigma_max: Annotated[float, SIGMA_MAX, "noise level that sampling starts from"] = 80.0
    first_sigma: Annotated[
        float | None,
        SIGMA_MAX,
        "highest noise level that the student is asked at; null: sigma_max, or 5 where a teacher_from of diffusers "
        "predicts noise (docs/teachers.md)",
    ] = None
    gamma: Annotated[
        float | None,
        FRACTION,
        "noise between the steps of a flow map: 0 none, 1 as much as in consistency steps; null: 0 for flow maps, no "
        "other student takes it (docs/distillation.md)",
    ] = None
    teacher_steps: Annotated[int, SAMPLING_STEPS, "steps of the teacher; Heun evaluates 2 · steps − 1 times"] = 32
    teacher: Annotated[str, SamplerName(), "sampler of the teacher: heun, dpm_solver, or a plugin's"] = "heun"
    times: Annotated[
        Mapping[str, Sequence[float]] | None,
        replace(TIME, open_low=True),
        Words(StepsToTimes.words),
        StepsToTimes(),
        "times for each number of steps, found by evaluate --search-times; null: from first_sigma and second_time",
    ] = None
    guidance: Annotated[
        float, NOT_NEGATIVE, "guidance scale of the teacher, at which students are distilled; 1: no guidance"
    ] = 1.0
    guidance_interval: Annotated[
        Sequence[float] | None, TIME, Interval(), "[low, high]: times within which guidance acts; null: at all times"
    ] = None

    @property
    def student_sigma(self) -> float:
        """Returns the noise level that the student's sampling starts from."""
        return self.sigma_max if self.first_sigma is None else min(self.first_sigma, self.sigma_max)


def first_sigma(sampler: Mapping[str, Any]) -> float | None:
    """Returns the noise level that a recipe limits its student to; None for no lower one than ``sigma_max``."""
    found: float | None = sampler["first_sigma"]
    return None if found is None or found >= sampler["sigma_max"] else found


def flow_map_gamma(sampler: Mapping[str, Any]) -> float:
    """Returns the noise between the steps of a flow map that a recipe asks for; none where it says nothing."""
    found: float | None = sampler.get("gamma")
    return 0.0 if found is None else found

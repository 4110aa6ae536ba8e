"""This module turns what a user asks for, on the page or by the REST interface, into a request of the pipeline."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from scm_media.pipeline import Pipeline, SamplingRequest
from scm_media.pipeline.requests import check_sizes
from scm_media.prompts import LABEL as PROMPT

TEACHER = "teacher"
STEPS = (1, 2, 4)
"""These numbers of steps are offered."""
MOST_STEPS = 128
"""A request may have this many steps: others wait for the same model."""
MOST_TIMES_LARGER = 16
"""A sample may be this many times as large as the model's own: others share the memory."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """This holds what a model is asked for. Anyone may have sent the values, so none has been checked yet."""

    model: str
    labels: Mapping[str, Any] = field(default_factory=dict)
    """Each label has its value here; a label without one is drawn."""
    label: str | None = None
    """The labels as the command line takes them, ``"Bag"`` or ``"family=guitar pitch=60"``, replace ``labels``."""
    prompt: str | None = None
    steps: str | None = None
    """"teacher" asks for the teacher, a number for so many steps of the student; None stands for the model's own."""
    guidance: float | None = None
    seed: Any = 0
    num: Any = 1
    first: Any = 0
    sizes: str | None = None
    """Size options are written ``"duration=3"``, several with spaces between them."""
    walk: tuple[Any, float] | None = None

    def request(self, pipeline: Pipeline, most: int, batch_size: int = 1) -> SamplingRequest:
        """Returns the request; raises ValueError, as ``SamplingRequest``, for values that no model can use.

        most: number of samples at most. batch_size: samples at once, after each of which others see progress.
        """
        num = _count("samples", self.num, most, "; ask for the rest afterwards")
        steps = _text("steps", self.steps)
        number = None if steps in ("", TEACHER) else _count("steps", steps, MOST_STEPS, "; use scm-media generate")
        sizes = parse_sizes(_text("sizes", self.sizes))
        _check_sizes(pipeline, sizes)
        walk = None
        if self.walk is not None:
            walk = whole("the second seed", self.walk[0]), _number("the fraction of a walk", self.walk[1])
        given = {name: value for name, value in self.labels.items() if value not in (None, "") and name != PROMPT}
        return SamplingRequest(
            num=num,
            label=_text("label", self.label) or given or None,
            prompt=self.prompt or None,
            steps=number,
            teacher=steps == TEACHER,
            guidance=None if self.guidance is None else _number("guidance", self.guidance),
            seed=whole("seed", self.seed),
            first=whole("the first sample's number", self.first),
            sizes=sizes,
            walk=walk,
            batch_size=batch_size,
        )


def whole(name: str, value: Any) -> int:
    """Returns a whole number, whichever way a page sends it; raises ValueError for anything else."""
    text = str(value).strip()
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, bool) or not re.fullmatch(r"[+-]?\d{1,30}", text, re.ASCII):
        raise ValueError(f"{name} must be a whole number, got {text[:40] or 'nothing'}")
    return int(text)


def _count(name: str, value: Any, most: int, remedy: str) -> int:
    """Returns a number of things of which a request may ask for 1 to ``most``; raises ValueError for any other."""
    number = whole(name, value)
    if not 1 <= number <= most:
        raise ValueError(f"the number of {name} must lie in 1 … {most} here, got {number}{remedy}")
    return number


def plain(value: float) -> str:
    """Returns a number as text that gives the same number again, without ``.0`` where it is whole."""
    return f"{value:.0f}" if float(value).is_integer() else repr(float(value))


def _number(name: str, value: Any) -> float:
    try:
        if not isinstance(value, bool):
            return float(value)
    except (TypeError, ValueError, OverflowError):
        pass
    raise ValueError(f"{name} must be a number, got {str(value)[:40] or 'nothing'}")


def _text(name: str, value: Any) -> str:
    if value is None or isinstance(value, str):
        return (value or "").strip()
    raise ValueError(f"{name} must be a text, got {str(value)[:40]}")


def parse_sizes(text: str) -> dict[str, float]:
    """Returns the size options of ``"duration=3"``; raises ValueError for text that is written otherwise."""
    sizes = {}
    for word in text.replace(",", " ").split():
        name, _, value = word.partition("=")
        try:
            sizes[name] = float(value)
        except ValueError as error:
            raise ValueError(f'sizes are written as "duration=3 fps=8", got {word[:40]!r}') from error
    return sizes


def parse_walk(text: str | None) -> tuple[Any, float] | None:
    """Returns the second seed and the fraction of ``"7 0.5"``, None for empty text; raises ValueError otherwise."""
    words = _text("a walk", text).replace(",", " ").split()
    if not words:
        return None
    try:
        other, fraction = words
        return other, float(fraction)
    except ValueError as error:
        raise ValueError(f'a walk is written as "7 0.5", a seed and a fraction, got {str(text)[:40]!r}') from error


def format_walk(walk: tuple[Any, float] | None) -> str:
    """Returns a walk as ``parse_walk`` reads it; "" for none."""
    return "" if walk is None else f"{walk[0]} {plain(walk[1])}"


def describe_sizes(pipeline: Pipeline) -> tuple[str, str]:
    """Returns the sizes of a model's samples as ``parse_sizes`` reads them, and their units in words."""
    options = pipeline.modality.size_options
    values = " ".join(f"{name}={option.default:g}" for name, option in options.items())
    return values, ", ".join(f"{name} in {option.unit}" for name, option in options.items())


def _check_sizes(pipeline: Pipeline, sizes: Mapping[str, float]) -> None:
    """Raises ValueError for sizes that the modality does not have, and for samples that are too large to share."""
    if unknown := [name for name in sizes if name not in pipeline.modality.size_options]:
        known = ", ".join(pipeline.modality.size_options) or "none"
        raise ValueError(f"the model has no size {unknown[0]!r}; it has {known}")
    check_sizes(pipeline.modality, sizes)
    own, asked = (math.prod(pipeline.modality.shape(**each)) for each in ({}, sizes))
    if asked > MOST_TIMES_LARGER * own:
        raise ValueError(
            f"a sample of these sizes is {asked / own:.0f} times as large as the model's own, at most "
            f"{MOST_TIMES_LARGER} times here; use scm-media generate for it"
        )


def offered_steps(pipeline: Pipeline, live: bool = False) -> list[str]:
    """Returns the choices of steps that a model has the networks for; live: without a teacher beside a student."""
    numbers = student_steps(pipeline, STEPS, pipeline.settings.steps)
    teacher = pipeline.folder.has("teacher") and not (live and numbers)
    return [*numbers, *([TEACHER] if teacher else [])]


def student_steps(pipeline: Pipeline, usual: Iterable[int], own: int) -> list[str]:
    """Returns the usual numbers of steps and the model's own as choices, in order; none where there is no student."""
    return [str(number) for number in sorted({*usual, own})] if pipeline.folder.has("student") else []


def default_steps(pipeline: Pipeline) -> str:
    """Returns the choice of steps that a model begins with."""
    return str(pipeline.settings.steps) if pipeline.folder.has("student") else TEACHER


def guides(pipeline: Pipeline) -> str:
    """Returns which networks take a guidance scale: ``"both"``, ``"teacher"`` or ``""``."""
    description = pipeline.folder.description
    teacher = pipeline.folder.has("teacher") and (
        pipeline.folder.has("guide") or bool(description.labels and description.label_dropout)
    )
    student = description.guidance_max is not None or bool(description.labels and description.student_label_dropout)
    return "both" if student else TEACHER if teacher else ""

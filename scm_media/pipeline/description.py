"""What ``model.json`` must hold: each key with its type and bounds, checked before anything is made of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NotRequired, TypedDict, get_origin, get_type_hints

from scm_media.bounds import SAMPLING_STEPS, SECOND_TIME, SIGMA_MAX, Bounds
from scm_media.samplers import SAMPLERS
from scm_media.typed import check_value, shown, shown_name

FORMAT = 2
LARGEST_SAMPLE = 1 << 28
"""Values of one sample or latent: 1 GiB in float32."""
MOST_AXES = 6
LONGEST_NAME = 200
"""Characters of a model's, a label's or a class's name: file names are made of them."""
SAMPLER: Mapping[str, Bounds] = {
    "steps": SAMPLING_STEPS,
    "teacher_steps": SAMPLING_STEPS,
    "second_time": SECOND_TIME,
    "sigma_max": SIGMA_MAX,
}
"""Key of ``sampler`` to its range, the same as in recipes."""


class Sampler(TypedDict):
    """How a model samples where nothing else is asked for; times in radians."""

    steps: NotRequired[int]
    second_time: NotRequired[float]
    sigma_max: NotRequired[float]
    teacher_steps: NotRequired[int]
    teacher: NotRequired[str]
    times: NotRequired[Mapping[str, Sequence[float]] | None]
    guidance: NotRequired[float]
    guidance_interval: NotRequired[Sequence[float] | None]


class Description(TypedDict):
    """The keys of ``model.json``; others are kept and not read."""

    format: NotRequired[int]
    name: str
    modality: Mapping[str, Any]
    flow: Mapping[str, Any]
    sampler: Mapping[str, Any]
    labels: Mapping[str, Sequence[str]]
    label_counts: Mapping[str, Sequence[int]]
    label_combinations: NotRequired[Sequence[str]]
    label_quantiles: NotRequired[Mapping[str, Sequence[float]]]
    sample_shape: Sequence[int]
    latent_shape: Sequence[int]
    objective: NotRequired[str | None]
    label_dropout: NotRequired[float | None]
    student_label_dropout: NotRequired[float | None]
    guidance_max: NotRequired[float | None]
    mask: NotRequired[Any]
    actions: NotRequired[Sequence[str] | None]
    ema: NotRequired[Mapping[str, Mapping[str, Any]] | None]
    data: NotRequired[str | None]
    licence: NotRequired[str | None]


REQUIRED = tuple(key for key, hint in get_type_hints(Description, include_extras=True).items()
                 if get_origin(hint) is not NotRequired)  # fmt: skip


def checked(description: Any, file: Path) -> dict[str, Any]:
    """Returns a description whose keys have the types and bounds of ``Description``; else ValueError with the file."""
    if not isinstance(description, dict):
        raise ValueError(f"{file} lacks an object with the keys {', '.join(REQUIRED)}; export the model again")
    if missing := [key for key in REQUIRED if key not in description]:
        raise ValueError(f"{file} lacks {', '.join(missing)}; export the model again")
    number = description.get("format", 1)
    if isinstance(number, int) and number > FORMAT:
        raise ValueError(f"{file} has format {shown(number)}, this version reads {FORMAT}; update scm-media")
    if isinstance(number, int) and number < FORMAT:
        raise ValueError(
            f"{file} has format {shown(number)}, this version reads {FORMAT}: scm-media convert {file.parent} "
            "NEW_FOLDER writes the model with today's names"
        )
    try:
        _check_keys(description, Description, "")
        _check_keys(description["sampler"], Sampler, "sampler.")
        _check_names(description)
        _check_counts(description)
        _check_sampler(description["sampler"])
        for key in ("sample_shape", "latent_shape"):
            _check_shape(description[key], key)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error
    return description


def _check_keys(section: Mapping[str, Any], kind: Any, prefix: str) -> None:
    for key, hint in get_type_hints(kind).items():
        if key in section:
            check_value(section[key], hint, f"{prefix}{key}")


def _check_names(description: Mapping[str, Any]) -> None:
    names = [description["name"], *description["labels"], *(description.get("actions") or ())]
    for name in [*names, *(each for classes in description["labels"].values() for each in classes)]:
        if not 0 < len(name) <= LONGEST_NAME:
            raise ValueError(
                f"a name of a model, label or class has 1 to {LONGEST_NAME} characters, got {len(name)}: {shown(name)}"
            )
    for label, classes in description["labels"].items():
        if len(set(classes)) < len(classes):
            raise ValueError(f"labels.{shown_name(label)} names a class twice")


def _check_counts(description: Mapping[str, Any]) -> None:
    """Raises ValueError for numbers of examples that do not belong to the classes that there are."""
    labels = description["labels"]
    for label, counts in description["label_counts"].items():
        num = len(labels.get(label, ()))
        if len(counts) not in (0, num) or any(count < 0 for count in counts) or (counts and not sum(counts)):
            raise ValueError(f"label_counts.{shown_name(label)} must count the examples of {num} classes")
    with_classes = [classes for classes in labels.values() if classes]
    for line in description.get("label_combinations", ()):
        words = line.split() if len(line) < 1000 else []
        right = len(words) == len(with_classes) + 1 and all(
            word.isascii() and word.isdecimal() and len(word) < 16 for word in words
        )
        if (
            not right
            or int(words[-1]) < 1
            or any(int(word) >= len(each) for word, each in zip(words, with_classes, strict=False))
        ):
            raise ValueError(f"label_combinations must give a class of each label and a count, got {shown(line)}")
    for label, values in description.get("label_quantiles", {}).items():
        if label not in labels or labels[label]:
            raise ValueError(f"label_quantiles.{shown_name(label)} is no label that is a number")
        if len(values) < 2 or list(values) != sorted(values):
            raise ValueError(f"label_quantiles.{shown_name(label)} must be two numbers or more, in rising order")


def _check_sampler(sampler: Mapping[str, Any]) -> None:
    for key, bounds in SAMPLER.items():
        if key in sampler and (expected := bounds.complaint(sampler[key])) is not None:
            raise ValueError(f"sampler.{key} must be {expected}, got {sampler[key]}")
    SAMPLERS.find(sampler.get("teacher", "heun"), "sampler.teacher")
    for steps, times in (sampler.get("times") or {}).items():
        if not steps.isdecimal() or not 1 <= len(times) <= SAMPLING_STEPS.high:
            raise ValueError(f"sampler.times must give times by a number of steps, got {shown(steps)}")
    interval = sampler.get("guidance_interval")
    if interval is not None and len(interval) != 2:
        raise ValueError(f"sampler.guidance_interval must be two times, got {len(interval)}")


def _check_shape(shape: Sequence[int], key: str) -> None:
    if not 2 <= len(shape) <= MOST_AXES or any(size < 1 for size in shape):
        raise ValueError(f"{key} must be channels and 1 to {MOST_AXES - 1} sizes, each at least 1, got {shown(shape)}")
    if math.prod(shape) > LARGEST_SAMPLE:
        raise ValueError(f"{key} must have at most {LARGEST_SAMPLE} values, got {shown(shape)}")

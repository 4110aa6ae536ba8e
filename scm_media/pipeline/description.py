"""``model.json``: what a model says about itself. Its keys are checked before anything is made of them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from scm_media import weights
from scm_media.prompts import LABEL as PROMPT
from scm_media.settings.sampling import Sampler
from scm_media.typed import check_value, hints_of, show, show_key

MODEL_FILE = "model.json"
FORMAT = 2
LARGEST_SAMPLE = 1 << 28
"""Values of one sample or latent: 1 GiB in float32."""
MAX_AXES = 6
LONGEST_ENCODER = 1000
"""Characters of the name or path of a text encoder."""
MAX_TOKENS = 4096
"""Tokens of a text."""
LONGEST_NAME = 200
"""Characters of a model's, a label's or a class's name: file names are made of them."""


@dataclass(frozen=True, kw_only=True)
class SamplerSettings(Sampler):
    """Defaults of a model's sampling requests. Raises ValueError, naming the key, for a wrong type or value."""

    def __post_init__(self) -> None:
        _check_fields(self, "sampler.")

    @classmethod
    def from_mapping(cls, settings: Any) -> SamplerSettings:
        """Returns the settings of a mapping from JSON or YAML; other keys in it are left out."""
        check_value(settings, Mapping[str, Any], "sampler")
        given = {each.name: settings[each.name] for each in fields(cls) if each.name in settings}
        if isinstance(times := given.get("times"), Mapping):
            given["times"] = {str(steps): each for steps, each in times.items()}  # YAML has whole numbers as keys
        return cls(**given)


@dataclass(frozen=True, kw_only=True)
class ModelDescription:
    """The keys of ``model.json``. Raises ValueError, naming the key, for a wrong type or value."""

    name: str
    """The model's name, usually that of its recipe: 1 to 200 characters."""
    modality: Mapping[str, Any]
    """Configuration of the modality."""
    flow: Mapping[str, Any]
    """Configuration of the flow."""
    sampler: SamplerSettings
    """Defaults of sampling requests."""
    labels: Mapping[str, Sequence[str]]
    """Label name to its classes; a label without classes is a number."""
    label_counts: Mapping[str, Sequence[int]]
    """Label name to the number of training samples of each class."""
    label_combinations: Sequence[str] = field(default_factory=list)
    """Class numbers of all labels that have classes, then how often the data have them together: ``"0 3 12"``."""
    label_quantiles: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """Label that is a number to its evenly spaced quantiles in the data, from the smallest to the largest."""
    actions: Sequence[str] | None = None
    """Names of the numbers that the networks are given for each frame; none for a model without actions."""
    sample_shape: Sequence[int]
    """``(C, *S)`` of one sample."""
    latent_shape: Sequence[int]
    """``(c, *s)`` of its latent."""
    objective: str | None = None
    """The student's objective: ``scd`` or ``sct``."""
    label_dropout: float | None = None
    """Probability that a sample had no label in the teacher's training; None: unknown."""
    student_label_dropout: float | None = None
    """Probability that a sample had no label in the student's training; None: unknown."""
    guidance_max: float | None = None
    """Largest guidance scale of a student that takes the scale as an input; None for any other student."""
    text: Mapping[str, Any] | None = None
    """The text encoder: ``encoder``, ``max_tokens`` and the ``labels`` shown beside texts; None without text."""
    mask: Mapping[str, Any] | None = None
    """Conditioning masks of training; None for networks that are not given a mask."""
    ema: Mapping[str, Mapping[str, Any]] | None = None
    """Stage to how the averaging length of its weights was chosen after training."""
    data: str | None = None
    """The training data, in words."""
    licence: str | None = None
    """Licence of the training data."""
    other: Mapping[str, Any] = field(default_factory=dict)
    """Keys of the file that this version does not know: they are kept."""

    def __post_init__(self) -> None:
        _check_fields(self)
        self._check_names()
        self._check_text()
        self._check_counts()
        self._check_combinations()
        self._check_quantiles()
        for key in ("sample_shape", "latent_shape"):
            _check_shape(getattr(self, key), key)

    @classmethod
    def from_json(cls, value: Any, file: Path) -> ModelDescription:
        """Returns the description that a JSON value holds; raises ValueError, naming the file, for any other value."""
        names = {each.name for each in fields(cls)} - {"other"}
        required = [each.name for each in fields(cls) if each.default is each.default_factory is MISSING]
        if not isinstance(value, dict):
            raise ValueError(f"{file} lacks an object with the keys {', '.join(required)}; export the model again")
        if missing := [key for key in required if key not in value]:
            raise ValueError(f"{file} lacks {', '.join(missing)}; export the model again")
        _check_format(value.get("format", 1), file)
        given = {key: each for key, each in value.items() if key in names}
        other = {key: each for key, each in value.items() if key not in {*names, "format"}}
        try:
            return cls(**given | {"sampler": SamplerSettings.from_mapping(given["sampler"]), "other": other})
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from error

    def to_json(self) -> dict[str, Any]:
        """Returns the keys and values of ``model.json``."""
        values = asdict(self)
        other = values.pop("other")
        return {"format": FORMAT, **values, **other}

    def write(self, folder: Path, name: str = MODEL_FILE) -> None:
        """Writes ``model.json`` into a folder, complete or not at all."""
        text = json.dumps(self.to_json(), indent=2, ensure_ascii=False)
        weights.write_whole(folder / name, f"{text}\n".encode())

    def _check_names(self) -> None:
        names = [self.name, *self.labels, *(self.actions or ())]
        for name in [*names, *(each for classes in self.labels.values() for each in classes)]:
            if not 0 < len(name) <= LONGEST_NAME:
                raise ValueError(
                    f"a name of a model, label or class has 1 to {LONGEST_NAME} characters, got {len(name)}: "
                    f"{show(name)}"
                )
        for label, classes in self.labels.items():
            if len(set(classes)) < len(classes):
                raise ValueError(f"labels.{show_key(label)} names a class twice")

    def _check_text(self) -> None:
        if self.text is None:
            return
        for key, hint in {"encoder": str, "max_tokens": int, "labels": Sequence[str] | None}.items():
            check_value(self.text.get(key), hint, f"text.{key}")
        encoder, max_tokens = self.text["encoder"], self.text["max_tokens"]
        if not 0 < len(encoder) <= LONGEST_ENCODER or not 1 <= max_tokens <= MAX_TOKENS:
            raise ValueError(
                f"text.encoder must have 1 to {LONGEST_ENCODER} characters, text.max_tokens lie in [1, {MAX_TOKENS}]; "
                f"got {show(encoder)}, {max_tokens}"
            )
        if lacking := [name for name in (PROMPT, *(self.text["labels"] or ())) if name not in self.labels]:
            raise ValueError(f"text needs the label {show(lacking[0])}, which labels does not have")

    def _check_counts(self) -> None:
        for label, counts in self.label_counts.items():
            num = len(self.labels.get(label, ()))
            if len(counts) not in (0, num) or any(count < 0 for count in counts) or (counts and not sum(counts)):
                raise ValueError(f"label_counts.{show_key(label)} must count the examples of {num} classes")

    def _check_combinations(self) -> None:
        num_classes = [len(classes) for classes in self.labels.values() if classes]
        for line in self.label_combinations:
            words = line.split() if len(line) < 1000 else []
            numbers = [int(word) for word in words if word.isascii() and word.isdecimal() and len(word) < 16]
            right = len(numbers) == len(words) == len(num_classes) + 1 and numbers[-1] >= 1
            if not right or any(number >= num for number, num in zip(numbers, num_classes, strict=False)):
                raise ValueError(f"label_combinations must give a class of each label and a count, got {show(line)}")

    def _check_quantiles(self) -> None:
        for label, values in self.label_quantiles.items():
            if label not in self.labels or self.labels[label]:
                raise ValueError(f"label_quantiles.{show_key(label)} is no label that is a number")
            if len(values) < 2 or list(values) != sorted(values):
                raise ValueError(f"label_quantiles.{show_key(label)} must be two numbers or more, in rising order")


def _check_fields(settings: SamplerSettings | ModelDescription, prefix: str = "") -> None:
    """Raises ValueError for a field whose value its annotation does not allow."""
    kind: Any = type(settings)
    for name, hint in hints_of(kind).items():
        if hint is not SamplerSettings:  # it has checked itself
            check_value(getattr(settings, name), hint, f"{prefix}{name}")


def _check_format(number: Any, file: Path) -> None:
    check_value(number, int, f"{file}: format")
    if number > FORMAT:
        raise ValueError(f"{file} has format {show(number)}, this version reads {FORMAT}; update scm-media")
    if number < FORMAT:
        raise ValueError(
            f"{file} has format {show(number)}, this version reads {FORMAT}: scm-media convert {file.parent} "
            "NEW_FOLDER writes the model with today's names"
        )


def _check_shape(shape: Sequence[int], key: str) -> None:
    if not 2 <= len(shape) <= MAX_AXES or any(size < 1 for size in shape):
        raise ValueError(f"{key} must be channels and 1 to {MAX_AXES - 1} sizes, each at least 1, got {show(shape)}")
    if math.prod(shape) > LARGEST_SAMPLE:
        raise ValueError(f"{key} must have at most {LARGEST_SAMPLE} values, got {show(shape)}")

"""What is wrong with a composed configuration: unknown keys, missing ones, values of the wrong kind."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from scm_media.build import nearest
from scm_media.display import printable
from scm_media.recipe.overrides import as_written, takes_text
from scm_media.recipe.parts import check_parts
from scm_media.recipe.ranges import check_bounds

CHOICES: Mapping[str, tuple[str, ...]] = {
    "precision": ("32-true", "bf16-mixed"),
    "device": ("auto", "cpu", "cuda", "mps"),
    "strategy": ("auto", "ddp"),
    "stage": ("all", "feature_extractor", "autoencoder", "teacher", "guide", "student"),
    "student.objective": ("scd", "sct"),
    "teacher.decay": ("constant", "cosine", "inverse_sqrt"),
    "student.decay": ("constant", "cosine", "inverse_sqrt"),
    "latents.dtype": ("float16", "float32"),
}
"""Keys with a closed set of values."""

GROUPS = ("modality", "data", "autoencoder", "backbone")
"""Groups that a recipe must choose from."""

BUILT = frozenset({*GROUPS, "feature_extractor", "network", "logger", "optimizer", "loss", "flow"})
"""Keys whose content is checked by what is built from it, not here."""

AT_LEAST_ONE = frozenset(
    {"batch_size", "num_devices", "num_nodes", "steps", "teacher_steps", "accumulate", "num_preview_samples"}
    | {"variants", "shard_size"}
    | {"log_every", "checkpoint_every", "sample_every", "validate_every", "keep_checkpoints"}
    | {"keep_snapshots"}
)

FEATURE_EXTRACTOR: Mapping[str, Any] = {"network": {}, "max_steps": 1, "batch_size": 1, "optimizer": {}}
FEATURE_EXTRACTOR_MAY: Mapping[str, Any] = {"warmup_steps": 0, "decay": "cosine", "decay_steps": None, "ema_std": 0.05}
"""What a feature extractor's section must hold, and what it may, with values of the kind they take."""

AUTOENCODER: Mapping[str, Any] = {"network": {}}
AUTOENCODER_MAY: Mapping[str, Any] = {"num_samples": None}
TRAINED_AUTOENCODER: Mapping[str, Any] = {
    **AUTOENCODER,
    **AUTOENCODER_MAY,
    "max_steps": 1,
    "batch_size": 1,
    "warmup_steps": 0,
    "decay": "cosine",
    "decay_steps": None,
    "ema_std": 0.05,
    "precision": None,
    "loss": {},
    "optimizer": {},
}
"""The same of an autoencoder's section: the keys of one that is measured, and of one that is trained."""

KNOWN: Mapping[str, Any] = {"probability": 0.5, "types": [""], "axis": -1, "fraction": [0.1]}
"""What ``conditioning.mask`` may hold."""

GUIDE: Mapping[str, Any] = {"backbone": {}, "max_steps": 1}
"""What a guide's section must hold; it may hold the teacher's other keys."""


def check(config: Mapping[str, Any], base: Mapping[str, Any], source: str) -> None:
    """Raises ValueError for a configuration that does not have the keys of ``base``, and values of their kinds."""
    for key in GROUPS:
        if not isinstance(config.get(key), Mapping):
            raise ValueError(f"{source}: the key {key!r} is missing; inherit a recipe (defaults: [image/tiny, _self_])")
    _check_section(config, {**base, **dict.fromkeys(GROUPS)}, source, "")
    _check_name(config["recipe"], source)
    if config["feature_extractor"] is not None:
        _check_stage(config["feature_extractor"], "feature_extractor", FEATURE_EXTRACTOR, FEATURE_EXTRACTOR_MAY, source)
    if config["guide"] is not None:
        may = {key: kind for key, kind in base["teacher"].items() if key not in GUIDE}
        _check_stage(config["guide"], "guide", GUIDE, may, source)
    _check_autoencoder(config["autoencoder"], source)
    _check_sampler(config["sampler"], source)
    _check_mask(config["conditioning"]["mask"], source)
    for key, choices in CHOICES.items():
        value: Any = config
        for part in key.split("."):
            value = value[part]
        if value not in choices:
            raise ValueError(f"{source}: {key} must be one of {', '.join(choices)}; got {value!r}")
    for key in (
        "flow",
        "modality",
        "data",
        "autoencoder",
        "backbone",
        "feature_extractor",
        "guide",
        "teacher",
        "student",
    ):
        check_parts(config[key], source, key)
    check_bounds(config, source)


def _check_name(name: str, source: str) -> None:
    """A recipe's name is part of ``run_dir``: it names a folder below it, in characters that can be seen."""
    parts = name.split("/")
    if not name.strip() or printable(name) != name or {"", ".", ".."} & set(parts):
        raise ValueError(
            f"{source}: recipe must be a name, or names between slashes, without control characters, got {name!r}; "
            "pass recipe=NAME"
        )


def _check_sampler(sampler: Mapping[str, Any], source: str) -> None:
    from scm_media.samplers import SAMPLERS  # brings torch along, which a recipe is listed without

    SAMPLERS.find(sampler["teacher"], f"{source}: sampler.teacher")
    scale, interval, times = sampler["guidance"], sampler["guidance_interval"], sampler["times"]
    if times is not None and not (isinstance(times, Mapping) and all(map(_are_times, times.values()))):
        raise ValueError(
            f"{source}: sampler.times must be steps to as many times in radians, as in {{2: [1.5645, 0.9]}}, or null; "
            f"got {times!r}"
        )
    if scale is None or not 0 <= scale < math.inf:
        raise ValueError(f"{source}: sampler.guidance must be a number of at least 0 (1 is none), got {scale!r}")
    ends = interval if isinstance(interval, list) else []
    right = len(ends) == 2 and all(type(end) in (int, float) for end in ends) and 0 <= ends[0] < ends[1] <= math.pi / 2
    if interval is not None and not right:
        raise ValueError(
            f"{source}: sampler.guidance_interval must be [low, high] in radians within [0, π/2], or null for all "
            f"times, got {interval!r}"
        )


def _are_times(value: Any) -> bool:
    return isinstance(value, list) and all(type(time) in (int, float) and 0 < time <= math.pi / 2 for time in value)


def _check_mask(section: Any, source: str) -> None:
    if section is None:
        return
    _check_stage(section, "conditioning.mask", {}, KNOWN, source)
    from scm_media.masks import MaskSampler  # brings torch along, which a recipe is listed without

    try:
        MaskSampler(**section)
    except ValueError as error:
        raise ValueError(f"{source}: conditioning.mask: {error}") from error


def _check_autoencoder(section: Mapping[str, Any], source: str) -> None:
    num = section.get("num_samples")
    if num is not None and (type(num) is not int or num < 1):
        raise ValueError(f"{source}: autoencoder.num_samples must be at least 1, or null for all, got {num!r}")
    if "max_steps" not in section:
        _check_stage(section, "autoencoder", AUTOENCODER, AUTOENCODER_MAY, source)
        return
    _check_stage(section, "autoencoder", TRAINED_AUTOENCODER, {}, source)
    for key, choices in (("decay", CHOICES["teacher.decay"]), ("precision", (None, *CHOICES["precision"]))):
        if section[key] not in choices:
            known = ", ".join(map(str, choices))
            raise ValueError(f"{source}: autoencoder.{key} must be one of {known}; got {section[key]!r}")


def _check_stage(section: Any, stage: str, must: Mapping[str, Any], may: Mapping[str, Any], source: str) -> None:
    """The section of a stage that a recipe may have: the keys it needs, and those it may have."""
    if not isinstance(section, Mapping):
        raise ValueError(f"{source}: {stage} must be a mapping of keys or null, got {section!r}")
    known = {**must, **may}
    for key in must:
        if key not in section:
            raise ValueError(f"{source}: {stage} needs the key {key!r}; it takes {', '.join(known)}")
        if isinstance(must[key], Mapping) and not isinstance(section[key], Mapping):
            raise ValueError(f"{source}: {stage}.{key} must be a mapping of keys, got {section[key]!r}")
    for key in section:
        if key not in known:
            raise ValueError(f"{source}: unknown key '{stage}.{key}'{nearest(key, known)}; known: {', '.join(known)}")
    left_out = may.keys() - section.keys()
    _check_section(section, {key: kind for key, kind in known.items() if key not in left_out}, source, f"{stage}.")


def _check_section(config: Mapping[str, Any], base: Mapping[str, Any], source: str, prefix: str) -> None:
    for key, value in config.items():
        name = f"{prefix}{key}"
        if key not in base:
            raise ValueError(f"{source}: unknown key {name!r}{nearest(key, base)}; known: {', '.join(base)}")
        expected = base[key]
        if key in BUILT:
            continue
        if not _same_kind(value, expected):
            kinds = {bool: "true or false", int: "a whole number", float: "a number", str: "a word", list: "a list"}
            kind = "a path or a name" if takes_text(name) else kinds.get(type(expected), "a mapping of keys")
            raise ValueError(f"{source}: {name} must be {kind}, got {as_written(value)}")
        if isinstance(expected, list) and expected and not all(_same_kind(each, expected[0]) for each in value):
            raise ValueError(f"{source}: {name} must be a list of values such as {expected[0]!r}, got {value!r}")
        if isinstance(expected, Mapping):
            _check_section(value, expected, source, f"{name}.")
        elif key in AT_LEAST_ONE and value < 1:
            raise ValueError(f"{source}: {name} must be at least 1, got {value}")
        elif (key.endswith("_steps") or key == "snapshot_every") and value is not None:
            if type(value) is not int:
                raise ValueError(f"{source}: {name} must be a whole number or null, got {value!r}")
            if value < 0:
                raise ValueError(f"{source}: {name} must not be negative, got {value}")
    for key in base:
        if key not in config:
            raise ValueError(f"{source}: the key {prefix + key!r} is missing; inherit a recipe or /base")


def _same_kind(value: Any, expected: Any) -> bool:
    """Whether a value may stand where ``expected`` is the default: whole numbers are numbers, a float may be null."""
    if expected is None:
        return True
    if isinstance(expected, float):
        return value is None or (isinstance(value, int | float) and not isinstance(value, bool))
    if isinstance(expected, Mapping):
        return isinstance(value, Mapping)
    return type(value) is type(expected)

"""Plain values held against Python's annotations: ``fits([1, 2], Sequence[int])``."""

from __future__ import annotations

import inspect
import math
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union

LARGEST_INTEGER = 1 << 53
"""Beyond it JSON readers disagree about an integer's value."""

OBJECT = "a mapping of keys"

_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text", Path: "text", NoneType: "null"}


def fits(value: Any, hint: Any) -> bool:
    """Returns whether a plain value is what an annotation says; what no configuration can hold is not judged."""
    origin = typing.get_origin(hint)
    if origin in (Union, UnionType):
        return any(fits(value, each) for each in typing.get_args(hint))
    if origin is Literal:
        return any(value is each or (value == each and type(value) is type(each)) for each in typing.get_args(hint))
    if hint is NoneType:
        return value is None
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint in (bool, str):
        return isinstance(value, hint)
    if hint is Path:
        return isinstance(value, str)
    kind = origin or hint
    if inspect.isclass(kind) and issubclass(kind, Mapping):
        return isinstance(value, Mapping) and all(fits(each, _argument(hint, 1)) for each in value.values())
    if inspect.isclass(kind) and issubclass(kind, Sequence):
        return isinstance(value, list | tuple) and all(fits(each, _argument(hint, 0)) for each in value)
    # An object is described by a mapping; what is no class (Any, a protocol's alias, a type variable) says nothing.
    return hint is Any or not inspect.isclass(kind) or isinstance(value, Mapping)


def in_words(hint: Any) -> str:
    """Returns what an annotation asks for, as an error message says it: "a list with each entry a whole number"."""
    origin = typing.get_origin(hint)
    if origin in (Union, UnionType):
        words = dict.fromkeys(in_words(each) for each in typing.get_args(hint))
        return " or ".join([each for each in words if each != OBJECT] or [OBJECT])
    if origin is Literal:
        return f"one of {', '.join(map(str, typing.get_args(hint)))}"
    kind = origin or hint
    if inspect.isclass(kind) and issubclass(kind, Mapping):
        entry = _argument(hint, 1)
        return "a mapping" if entry is Any else f"a mapping with each value {in_words(entry)}"
    if inspect.isclass(kind) and kind is not str and issubclass(kind, Sequence):
        entry = _argument(hint, 0)
        return "a list" if entry is Any else f"a list with each entry {in_words(entry)}"
    return _WORDS.get(hint, OBJECT)


def check_value(value: Any, hint: Any, name: str) -> None:
    """Raises ValueError, by name, for a value that an annotation does not allow, or that is infinite or no number."""
    check_finite(value, name)
    if (problem := mismatch(value, hint, name)) is not None:
        raise ValueError(problem)


def mismatch(value: Any, hint: Any, name: str) -> str | None:
    """Returns what a value has to be where an annotation does not allow it, in a sentence; None where it does."""
    if fits(value, hint):
        return None
    remedy = f": write {name}=[{value}]" if isinstance(value, str) and fits([value], hint) else ""
    return f"{name} must be {in_words(hint)}, got {shown(value)}{remedy}"


def check_finite(value: Any, name: str) -> None:
    """Raises ValueError, by name, for a number in a value that is infinite, no number, or beyond ±2^53."""
    if isinstance(value, Mapping):
        for key, each in value.items():
            check_finite(each, f"{name}.{shown_name(key)}")
    elif isinstance(value, list | tuple):
        for each in value:
            check_finite(each, name)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{name} must be a finite number, got {value}")
    elif isinstance(value, int) and abs(value) > LARGEST_INTEGER:
        raise ValueError(f"{name} must lie within ±2^53, got a number of {abs(value).bit_length()} bits")


def shown(value: Any) -> str:
    """Returns a value as it may stand in a message: as YAML has it, on one line and short, whoever wrote it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = str(value) if not isinstance(value, int) or abs(value) <= LARGEST_INTEGER else "a very large number"
    return ascii(value) if len(text) < 200 else f"{text[:80]!a}…"


def shown_name(key: Any) -> str:
    """Returns a key as it may stand in a message, without quotes where it is a plain word."""
    return key if isinstance(key, str) and key.isidentifier() and len(key) < 80 else shown(key)


def _argument(hint: Any, place: int) -> Any:
    """Returns an annotation's argument at a place, of ``tuple[int, int]`` that of all places; Any where it has none."""
    arguments = [each for each in typing.get_args(hint) if each is not ...]
    if not arguments:
        return Any
    return arguments[place] if place < len(arguments) else arguments[-1]

"""Compares plain values with Python's annotations: ``fits([1, 2], Sequence[int])``, ``Annotated[int, Bounds(1)]``.

The same functions check the settings of a recipe, against the dataclasses of ``scm_media.settings``, the arguments of
its parts, against their signatures, and the keys of ``model.json``.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import itertools
import math
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Protocol, Union, runtime_checkable

LARGEST_INTEGER = 1 << 53
"""The largest integer that every reader of JSON keeps exactly."""

OBJECT = "a mapping of keys"

_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text", Path: "text", NoneType: "null"}


@runtime_checkable
class Constraint(Protocol):
    """A check that ``Annotated`` adds to a type, such as ``Bounds``."""

    def problem(self, value: Any, key: str) -> str | None:
        """Returns in a sentence what is wrong with the value of a key; None if nothing is."""


@dataclass(frozen=True)
class Words:
    """Says in errors what a value has to be, where the type's own words ("text") say too little."""

    words: str


def check_value(value: Any, hint: Any, name: str) -> None:
    """Raises ValueError, by name, for a value that an annotation does not allow, or that is infinite or no number."""
    if (found := problem(value, hint, name)) is not None:
        raise ValueError(found)


def problem(value: Any, hint: Any, name: str) -> str | None:
    """Returns in a sentence what is wrong with a value of this name; None where the annotation allows it.

    An annotation may be a dataclass, whose fields are the keys of a mapping, and may hold ``Constraint``s. Numbers
    without ``Bounds`` must be finite and within ±2^53.
    """
    found = _mismatch(value, hint, name)
    return _constraint_problem(value, hint, name, bounded=False) if found is None else found


def _constraint_problem(value: Any, hint: Any, name: str, bounded: bool) -> str | None:
    """Returns what is wrong with a value that has its annotation's type; bounded: its numbers are checked elsewhere."""
    extra, plain = unwrap(hint)
    constraints = [each for each in extra if isinstance(each, Constraint)] if value is not None else []
    if (found := _inner_problem(value, plain, name, bounded or bool(constraints))) is not None:
        return found
    return next((found for each in constraints if (found := each.problem(value, name)) is not None), None)


def _inner_problem(value: Any, hint: Any, name: str, bounded: bool) -> str | None:
    if typing.get_origin(hint) in (Union, UnionType):
        chosen = member(value, hint)
        return None if chosen is hint else _constraint_problem(value, chosen, name, bounded)
    if is_dataclass(hint):
        return _section_problem(value, hint, name)
    if isinstance(value, Mapping):
        inner = [(each, _argument(hint, 1), f"{name}.{show_key(key)}") for key, each in value.items()]
    elif isinstance(value, list | tuple):
        inner = [(each, _argument(hint, index), name) for index, each in enumerate(value)]
    else:
        return None if bounded else _number_problem(value, name)
    return next((found for each in inner if (found := _constraint_problem(*each, bounded)) is not None), None)


def _section_problem(value: Mapping[str, Any], section: Any, name: str) -> str | None:
    """Returns what is wrong with a mapping whose keys are the fields of a dataclass."""
    known, hints = {field.name: field for field in fields(section)}, hints_of(section)
    listed, prefix = ", ".join(known), f"{name}." if name else ""
    for key in value:
        if key not in known:
            return f"unknown key '{prefix}{show_key(key)}'{nearest(key, known)}; known: {listed}"
    needed = sorted(known.values(), key=lambda field: not is_required(field))
    for field in needed:
        if field.name not in value and (is_required(field) or not getattr(section, "may_omit_defaults", False)):
            if name:
                return f"{name} needs the key {field.name!r}; it takes {listed}"
            return f"the key {field.name!r} is missing; inherit a recipe (defaults: [image/tiny, _self_])"
    checked = (problem(value[key], hints[key], f"{prefix}{key}") for key in known if key in value)
    return next((found for found in checked if found is not None), None)


def is_required(field: Field[Any]) -> bool:
    """Returns whether a dataclass's field has no default."""
    return field.default is MISSING and field.default_factory is MISSING


@functools.cache
def hints_of(section: Any) -> dict[str, Any]:
    """Returns the annotation of each field of a dataclass, with what ``Annotated`` adds."""
    return typing.get_type_hints(section, include_extras=True)


def member(value: Any, hint: Any) -> Any:
    """Returns the member of a union that a value fits, of dataclasses the one that knows most of its keys.

    Other annotations, and unions that the value does not fit, are returned as they are.
    """
    if typing.get_origin(hint) not in (Union, UnionType):
        return hint
    fitting = [each for each in typing.get_args(hint) if fits(value, each)]
    if sections := [each for each in fitting if is_dataclass(each)]:
        return max(sections, key=lambda section: len(value.keys() & {field.name for field in fields(section)}))
    return fitting[0] if fitting else hint


def fits(value: Any, hint: Any) -> bool:
    """Returns whether a plain value has the type of an annotation; what no configuration can hold is not judged."""
    hint = unwrap(hint)[1]
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
    extra, hint = unwrap(hint)
    if words := [each.words for each in extra if isinstance(each, Words)]:
        return f"{words[0]} or null" if _takes_null(hint) else words[0]
    origin = typing.get_origin(hint)
    if origin in (Union, UnionType):
        found = list(dict.fromkeys(in_words(each) for each in typing.get_args(hint)))
        plain = [each for each in found if each != OBJECT]
        return " or ".join(found if plain in ([], ["null"]) else plain)
    if origin is Literal:
        return f"one of {', '.join(map(str, typing.get_args(hint)))}"
    kind = origin or hint
    if inspect.isclass(kind) and issubclass(kind, Mapping):
        entry = _argument(hint, 1)
        return OBJECT if entry is Any else f"a mapping with each value {in_words(entry)}"
    if inspect.isclass(kind) and kind is not str and issubclass(kind, Sequence):
        entry = _argument(hint, 0)
        return "a list" if entry is Any else f"a list with each entry {in_words(entry)}"
    return _WORDS.get(hint, OBJECT)


def choices(hint: Any) -> tuple[str, ...]:
    """Returns the values that an annotation lists, as a recipe has them; empty where others are possible.

    They are those of Literal and of bool, and null where it is taken beside them.
    """
    hint = unwrap(hint)[1]
    if hint is bool:
        return ("true", "false")
    if typing.get_origin(hint) is Literal:
        return tuple(map(str, typing.get_args(hint)))
    if typing.get_origin(hint) not in (Union, UnionType):
        return ()
    listed = [choices(each) for each in typing.get_args(hint) if each is not NoneType]
    return (*itertools.chain(*listed), *(["null"] * _takes_null(hint))) if all(listed) else ()


def _takes_null(hint: Any) -> bool:
    return NoneType in typing.get_args(hint)


def metadata(hint: Any, kind: type) -> Iterator[Any]:
    """Yields what ``Annotated`` adds of a kind to an annotation, or to a member of its union or list."""
    extra, plain = unwrap(hint)
    yield from (each for each in extra if isinstance(each, kind))
    if typing.get_origin(plain) is not Literal:
        for each in typing.get_args(plain):
            yield from metadata(each, kind)


def unwrap(hint: Any) -> tuple[tuple[Any, ...], Any]:
    """Returns what ``Annotated`` adds to an annotation, and the annotation without it."""
    return (hint.__metadata__, hint.__origin__) if typing.get_origin(hint) is Annotated else ((), hint)


def _mismatch(value: Any, hint: Any, name: str) -> str | None:
    if fits(value, hint):
        return None
    remedy = f": write {name}=[{value}]" if isinstance(value, str) and fits([value], hint) else ""
    return f"{name} must be {in_words(hint)}, got {show(value)}{remedy}"


def _number_problem(value: Any, name: str) -> str | None:
    if isinstance(value, float) and not math.isfinite(value):
        return f"{name} must be a finite number, got {value}"
    if isinstance(value, int) and abs(value) > LARGEST_INTEGER:
        return f"{name} must lie within ±2^53, got a number of {abs(value).bit_length()} bits"
    return None


def show(value: Any) -> str:
    """Returns a value as messages show it: as YAML has it, on one line and short, whatever is in it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = str(value) if not isinstance(value, int) or abs(value) <= LARGEST_INTEGER else "a very large number"
    return ascii(value) if len(text) < 200 else f"{text[:80]!a}…"


def show_key(key: Any) -> str:
    """Returns a key as messages show it, without quotes where it is a plain word."""
    return key if isinstance(key, str) and key.isidentifier() and len(key) < 80 else show(key)


def nearest(word: str, known: Iterable[str]) -> str:
    """Returns `` (nearest: a, b)`` for the end of an error message, or nothing when no known word comes near."""
    close = difflib.get_close_matches(str(word)[:80], list(known), n=3, cutoff=0.6)
    return f" (nearest: {', '.join(close)})" if close else ""


def _argument(hint: Any, index: int) -> Any:
    """Returns an annotation's argument at an index, the last one for larger indices; Any where it has none."""
    arguments = [each for each in typing.get_args(unwrap(hint)[1]) if each is not ...]
    if not arguments:
        return Any
    return arguments[index] if index < len(arguments) else arguments[-1]

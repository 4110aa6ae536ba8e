"""The kinds of values that parts of a recipe take: what stands in the signature of what is built from them."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from scm_media.build import PARTIAL, TARGET, resolve
from scm_media.recipe.overrides import as_written, takes_text

FILLED_IN = frozenset({"in_channels", "labels", "label_units"})
"""Keys of a backbone that are null in a recipe: training fills them in from the data."""

_KINDS: Mapping[Any, tuple[tuple[type, ...], str]] = {
    bool: ((bool,), "true or false"),
    int: ((int,), "a whole number"),
    float: ((int, float), "a number"),
    str: ((str,), "a word"),
    Path: ((str,), "a path"),
    type(None): ((type(None),), "null"),
}


def check_parts(value: Any, source: str, key: str = "") -> None:
    """Raises ValueError for a value of another kind than the signature of its part's ``_target_`` has, with its key.

    Only plain kinds are looked at (numbers, words, booleans, null and lists of these); targets that are not allowed or
    not installed are refused where they are built.
    """
    if isinstance(value, list):
        for place, inner in enumerate(value):
            check_parts(inner, source, f"{key}[{place}]")
    if not isinstance(value, Mapping):
        return
    hints = _hints(value[TARGET]) if TARGET in value else {}
    for name, inner in value.items():
        dotted = f"{key}.{name}" if key else str(name)
        if name in (TARGET, PARTIAL):
            continue
        if inner is None and name in FILLED_IN and "backbone" in key.split("."):
            continue
        if name in hints and (expected := _expected(inner, hints[name])) is not None:
            if takes_text(dotted):
                expected = expected.replace("a word or a path", "a path").replace("a word", "a path")
            raise ValueError(f"{source}: {dotted} must be {expected}, got {as_written(inner)}")
        check_parts(inner, source, dotted)


def _hints(target: Any) -> dict[str, Any]:
    """Name of a parameter to its annotation; None is taken by those alone that have it there or by default."""
    try:
        found = resolve(target)
        function = found.__init__ if inspect.isclass(found) else found
        hints = typing.get_type_hints(function)
        parameters = inspect.signature(function).parameters
    except (ValueError, TypeError, NameError, AttributeError):
        return {}
    return {
        name: hint | None if name in parameters and parameters[name].default is None else hint
        for name, hint in hints.items()
        if name != "return"
    }


def _expected(value: Any, hint: Any) -> str | None:
    """What an annotation expects, in words, where a value is none of it; None where it is, or nobody can say."""
    options = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    words = []
    for option in options:
        fits, said = _fits(value, option)
        if fits:
            return None
        words.append(said)
    return " or ".join(dict.fromkeys(word for word in words if word)) or None


def _fits(value: Any, option: Any) -> tuple[bool, str]:
    """Whether a value is of a kind, and the kind in words; what is no plain kind fits everything but plain values."""
    if option in _KINDS:
        kinds, said = _KINDS[option]
        return isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool)), said
    origin = typing.get_origin(option)
    if origin is Literal:
        choices = typing.get_args(option)
        return value in choices, f"one of {', '.join(map(str, choices))}"
    if inspect.isclass(origin) and issubclass(origin, Mapping):
        return isinstance(value, Mapping), "a mapping of keys"
    if origin is tuple or (inspect.isclass(origin) and issubclass(origin, Sequence)):
        inner = [part for part in typing.get_args(option) if part is not Ellipsis]
        if not isinstance(value, list):
            return False, f"a list of {_plural(inner)}"
        fits = all(any(_fits(each, part)[0] for part in inner) for each in value)
        return fits or not inner, f"a list of {_plural(inner)}"
    # An object is described by a mapping; what is no class (Any, type variables) says nothing.
    return isinstance(value, Mapping) or not inspect.isclass(option), ""


def _plural(kinds: Sequence[Any]) -> str:
    names = {int: "whole numbers", float: "numbers", str: "words", bool: "true or false"}
    return names.get(kinds[0], "values") if kinds else "values"

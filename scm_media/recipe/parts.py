"""The kinds of values that parts of a recipe take: what stands in the signature of what is built from them."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Mapping
from typing import Any

from scm_media.build import PARTIAL, TARGET, resolve
from scm_media.recipe.overrides import takes_text
from scm_media.typed import mismatch

FILLED_IN = frozenset({"in_channels", "labels", "label_units"})
"""Keys of a backbone that are null in a recipe: training fills them in from the data."""


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
        if name in hints and (problem := mismatch(inner, hints[name], dotted)) is not None:
            raise ValueError(f"{source}: {problem.replace(' text', ' a path') if takes_text(dotted) else problem}")
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

"""Reads overrides as a user types them: keys that take text get text, and errors quote for Hydra and the shell."""

from __future__ import annotations

import functools
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import is_dataclass
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from scm_media.parts import PARAMETERS, PATH
from scm_media.settings import Recipe
from scm_media.typed import hints_of, show, unwrap


def _text_keys(section: Any = Recipe, prefix: str = "") -> Iterator[str]:
    """Yields the dotted settings whose value is a name, a path or a sentence."""
    for key, hint in hints_of(section).items():
        _, kind = unwrap(hint)
        if kind in (str, str | None):
            yield f"{prefix}{key}"
        elif is_dataclass(kind):
            yield from _text_keys(kind, f"{prefix}{key}.")


TEXT_KEYS = frozenset(_text_keys())
"""Settings whose value is text, even if it looks like a number."""

_OVERRIDE = re.compile(r"(\+{0,2})(\w[\w./@:$-]*)=(.*)", re.S)
_DELETION = re.compile(r"~\w.*", re.S)


def takes_text(key: str) -> bool:
    """Returns whether a dotted key takes a path or a name, so that 2024 means the text "2024" there."""
    return key in TEXT_KEYS or PATH in PARAMETERS.get(key.rpartition(".")[2], ())


def quote(value: str) -> str:
    """Returns a value in quotes, which Hydra's grammar reads literally (except for interpolations)."""
    return '"' + re.sub(r'(\\+)("|\Z)|"', _escaped_quote, value) + '"'


def _escaped_quote(match: re.Match[str]) -> str:
    """Returns a quote or the backslashes before it, escaped: Hydra reads backslashes literally except before quotes."""
    backslashes, quote = 2 * (match[1] or ""), match[0].endswith('"')
    return f'{backslashes}\\"' if quote else backslashes


def escaped_interpolations(text: str) -> str:
    """Returns a text that OmegaConf resolves to ``text``, although it may contain ``${key}``."""
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", text)


def literal_texts(overrides: Sequence[str]) -> list[str]:
    """Returns the overrides with quotes where a key takes text and Hydra would read a number or nothing at all.

    ``data.root=2024``, ``data.root=true`` and ``data.root=~/résumé`` are folders; null, lists, interpolations and
    values with commas (several values, to Hydra) stay as they are.
    """
    return [_literal(override) for override in overrides]


def _literal(override: str) -> str:
    match = _OVERRIDE.fullmatch(override)
    if match is None or not takes_text(match[2]) or not match[3]:
        return override
    parsed = parse(override)
    wanted = "," not in match[3] and "${" not in match[3] if parsed is None else _is_no_text(parsed)
    return f"{match[1]}{match[2]}={quote(match[3])}" if wanted else override


def _is_no_text(parsed: Override) -> bool:
    return not parsed.is_sweep_override() and isinstance(parsed.value(), bool | int | float)


@functools.lru_cache(maxsize=4096)
def parse(override: str) -> Override | None:
    """Returns an override as Hydra reads it, or None if Hydra cannot read it.

    Reading takes 2 ms, so the result is kept and shared: callers must not change it.
    """
    try:
        return OverridesParser.create().parse_override(override)
    except (HydraException, ValueError):  # ValueError for a group that is given a number
        return None


def check_overrides(overrides: Sequence[str], source: str, sweeps: bool) -> None:
    """Raises ValueError for the first override that Hydra cannot read, or that has several values without a sweep."""
    for override in overrides:
        parsed = parse(override)
        if parsed is None or not (_OVERRIDE.fullmatch(override) or _DELETION.fullmatch(override)):
            raise ValueError(f"{source}: {_quoting_advice(override)}")
        if parsed.is_sweep_override() and not sweeps:
            raise ValueError(f"{source}: {_several_values_advice(override)}")


def _quoting_advice(override: str) -> str:
    """Returns the way to write an override that Hydra cannot read, for Hydra and for the shell."""
    match = _OVERRIDE.fullmatch(override)
    if match is None:
        return f"got the override {override!r}; expected KEY=VALUE with a dotted key, as in student.max_steps=1000"
    better = f"{match[1]}{match[2]}={quote(match[3])}"
    if parse(better) is None:
        return f"the override {override!r} cannot be read; expected KEY=VALUE, as in student.max_steps=1000"
    return (
        f"the override {override!r} cannot be read; a value with spaces, commas, brackets or other signs is quoted for "
        f"Hydra, and all of it for the shell: {shlex.quote(better)}"
    )


def _several_values_advice(override: str) -> str:
    """Returns the way to write an override that Hydra takes for several values, which only a sweep may have."""
    match = _OVERRIDE.fullmatch(override)
    if match is None:
        return f"the override {override!r} has several values, which train takes with -m alone"
    return (
        f"the override {override!r} has several values, which train takes with -m alone; one value is quoted for "
        f"Hydra, and all of it for the shell: {shlex.quote(f'{match[1]}{match[2]}={quote(match[3])}')}; a list is in "
        f"brackets: {shlex.quote(f'{match[1]}{match[2]}=[{match[3]}]')}"
    )


def as_texts(config: dict[str, Any], source: str) -> None:
    """Turns whole numbers into text where a key of a composed configuration takes text (``root: 2024``), in place.

    Raises ValueError for other numbers and booleans, whose text YAML has not kept: they have to be quoted.
    """
    for section, key, name in list(_entries(config, "")):
        value = section[key]
        if type(value) is int:
            section[key] = str(value)
        elif isinstance(value, bool | float):
            written = show(value)
            raise ValueError(
                f"{source}: {name} takes text, got {written}, which YAML reads as {_kind(value)}: put it in quotes, "
                f'{key}: "{written}", or give it on the command line: {name}=VALUE'
            )


def _entries(section: Any, prefix: str) -> Any:
    """Yields (section, key, dotted key) of every key that takes text."""
    for key, value in section.items():
        name = f"{prefix}{key}"
        if takes_text(name):
            yield section, key, name
        elif isinstance(value, Mapping):
            yield from _entries(value, f"{name}.")


def _kind(value: Any) -> str:
    return "true or false" if isinstance(value, bool) else "a number"

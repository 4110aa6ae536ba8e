"""Checks the interpolations of recipes: they may refer to other keys, and not read the environment, files or code.

The value of an interpolation leaves the machine: it is written to a run's recipe.yaml and model.json, to model cards
and to addresses that loggers call. So resolvers (``${name:arguments}``) are allowed by name. A recipe may not
grow without bounds either: twenty keys that each refer twice to the next one stand for a million copies of the last.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from omegaconf import OmegaConf
from omegaconf.base import Container
from omegaconf.basecontainer import BaseContainer
from omegaconf.errors import GrammarParseError
from omegaconf.grammar_parser import OmegaConfGrammarParser, parse

ALLOWED_RESOLVERS = frozenset({"now", "oc.select"})
"""``${oc.select:key,default}`` reads the recipe, ``${now:%Y-%m-%d}`` the clock."""

MOST = 1 << 20
"""The largest number of characters and values that a recipe may stand for."""

_SIMPLE = re.compile(r"\$\{\s*(?:oc\.select\s*:)?\s*([^${},]*)(?:,[^${}]*)?\}")
"""An interpolation without another inside: the key that it refers to is the group."""

Path = tuple[str, ...]

_REMEDY = (
    "a recipe refers to its own keys alone (${seed}), since what it resolves to leaves the machine with models and "
    "cards; write the value itself, or pass it on the command line, where the shell fills it in: "
)


class RefusedResolver(ValueError):
    """The error of a resolver that is not allowed; OmegaConf raises errors of its own from it."""


def check_interpolations(config: Container, source: str) -> None:
    """Raises ValueError for a value that calls a resolver outside ``ALLOWED_RESOLVERS``, and as ``check_expansion``.

    Nothing is resolved.
    """
    plain = OmegaConf.to_container(config, resolve=False)
    check_expansion(plain, source)
    for key, text in _texts(plain, ""):
        for name in _resolvers(text):
            if name not in ALLOWED_RESOLVERS:
                raise ValueError(f"{source}: {key} calls the resolver {name!r}: {_REMEDY}'{key}='\"$VARIABLE\"")


@contextmanager
def allowed_resolvers() -> Iterator[None]:
    """Makes every resolver but the allowed ones raise inside, for the names in defaults, which Hydra resolves itself.

    OmegaConf has no public way to list or replace resolvers, so its table is changed.
    """
    before = dict(BaseContainer._resolvers)
    for name in before.keys() - ALLOWED_RESOLVERS:
        BaseContainer._resolvers[name] = _make_refusal(name)
    try:
        yield
    finally:
        BaseContainer._resolvers.clear()
        BaseContainer._resolvers.update(before)


def _make_refusal(name: str) -> Any:
    def refuse(*_: Any) -> Any:
        raise RefusedResolver(f'a list of defaults calls the resolver {name!r}: {_REMEDY}GROUP="$VARIABLE"')

    return refuse


def _texts(value: Any, key: str) -> Iterator[tuple[str, str]]:
    """Yields the dotted key and the text of every string with an interpolation."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _texts(inner, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _texts(inner, f"{key}[{index}]")
    elif isinstance(value, str) and "${" in value:
        yield key, value


def _resolvers(text: str) -> Iterator[str]:
    """Yields the names of the resolvers that a text calls, as written: a computed name is never an allowed one.

    The parser is OmegaConf's own, which is not public: another one might read a text differently.
    """
    try:
        waiting = [parse(text)]
    except GrammarParseError:
        return  # resolving it raises the same error, with its key
    while waiting:
        node = waiting.pop()
        if isinstance(node, OmegaConfGrammarParser.InterpolationResolverContext):
            yield node.resolverName().getText()
        waiting += getattr(node, "children", None) or []


def check_expansion(plain: Any, source: str) -> None:
    """Raises ValueError for an unresolved recipe whose interpolations stand for more than ``MOST`` characters."""
    try:
        size = _Sizes(plain).of(())
    except RecursionError:
        size = MOST + 1
    if size > MOST:
        raise ValueError(
            f"{source}: its interpolations (${{…}}) stand for more than {MOST} characters: refer to fewer keys"
        )


class _Sizes:
    """Sizes of the values of a configuration by their paths, each counted once."""

    def __init__(self, plain: Any) -> None:
        self.plain = plain
        self.known: dict[Path, int] = {}

    def of(self, path: Path) -> int:
        """Returns the size of the value at a path when everything in it is filled in; 0 where there is none."""
        if path not in self.known:
            self.known[path] = 0  # OmegaConf refuses what refers to itself
            value = self._at(path)
            if isinstance(value, Mapping):
                self.known[path] = 1 + sum(len(str(key)) + self.of((*path, str(key))) for key in value)
            elif isinstance(value, list):
                self.known[path] = 1 + sum(self.of((*path, str(place))) for place in range(len(value)))
            else:
                self.known[path] = self._of_text(value, path) if isinstance(value, str) else 1
        return self.known[path]

    def _of_text(self, text: str, path: Path) -> int:
        size = 0
        for _ in range(10):
            found = list(_SIMPLE.finditer(text))
            if not found or size > MOST:
                return size + len(text)
            size += sum(self.of(self._target(match[1].strip(), path)) for match in found)
            nested = "${" in _SIMPLE.sub("", text)
            words = iter([self._word(match[1].strip(), path) if nested else "" for match in found])
            text = _SIMPLE.sub(lambda _: next(words), text)  # noqa: B023 (used up at once)
        return MOST + 1

    def _word(self, key: str, path: Path) -> str:
        value = self._at(self._target(key, path))
        return str(value)[:100] if isinstance(value, str | int) else "_"

    def _target(self, key: str, path: Path) -> Path:
        """Returns the path that a key refers to, from where it stands when it begins with dots."""
        dots = len(key) - len(key.lstrip("."))
        parts = tuple(part for part in re.split(r"[.\[\]]+", key) if part)
        return (*path[: len(path) - dots], *parts) if dots else parts

    def _at(self, path: Path) -> Any:
        value = self.plain
        for part in path:
            if isinstance(value, Mapping):
                value = next((inner for key, inner in value.items() if str(key) == part), None)
            elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
                value = value[int(part)]
            else:
                return None
        return value

"""Interpolations of recipes: references to other keys, and nothing that reads the environment, files or code.

What an interpolation gives leaves the machine: it stands in a run's recipe.yaml and model.json, in model cards and in
addresses that loggers call. So resolvers (``${name:arguments}``) are allowed by name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from omegaconf import OmegaConf
from omegaconf.base import Container
from omegaconf.basecontainer import BaseContainer
from omegaconf.errors import GrammarParseError
from omegaconf.grammar_parser import OmegaConfGrammarParser, parse

from scm_media.recipe.expansion import check_expansion

ALLOWED_RESOLVERS = frozenset({"now", "oc.select"})
"""``${oc.select:key,default}`` reads the recipe, ``${now:%Y-%m-%d}`` the clock."""

_REMEDY = (
    "a recipe refers to its own keys alone (${seed}), since what it resolves to leaves the machine with models and "
    "cards; write the value itself, or pass it on the command line, where the shell fills it in: "
)


class RefusedResolver(ValueError):
    """A resolver was called that is not allowed; OmegaConf raises errors of its own from it."""


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
    """Inside, every resolver but the allowed ones raises: for what Hydra resolves itself, the names in defaults."""
    before = dict(BaseContainer._resolvers)
    for name in before.keys() - ALLOWED_RESOLVERS:
        BaseContainer._resolvers[name] = _refusing(name)
    try:
        yield
    finally:
        BaseContainer._resolvers.clear()
        BaseContainer._resolvers.update(before)


def _refusing(name: str) -> Any:
    def refuse(*_: Any) -> Any:
        raise RefusedResolver(f'a list of defaults calls the resolver {name!r}: {_REMEDY}GROUP="$VARIABLE"')

    return refuse


def _texts(value: Any, key: str) -> Iterator[tuple[str, str]]:
    """Yields the dotted key and the text of every string with an interpolation."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _texts(inner, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            yield from _texts(inner, f"{key}[{place}]")
    elif isinstance(value, str) and "${" in value:
        yield key, value


def _resolvers(text: str) -> Iterator[str]:
    """Returns the names of the resolvers that a text calls, as written: a computed name is none that is allowed."""
    try:
        waiting = [parse(text)]
    except GrammarParseError:
        return  # resolving it raises the same error, with its key
    while waiting:
        node = waiting.pop()
        if isinstance(node, OmegaConfGrammarParser.InterpolationResolverContext):
            yield node.resolverName().getText()
        waiting += getattr(node, "children", None) or []

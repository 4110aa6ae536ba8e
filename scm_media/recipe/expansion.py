"""How much a recipe becomes when its interpolations are filled in, counted before they are.

Twenty keys that each refer twice to the next one stand for a million copies of the last, thirty for a thousand million.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

MOST = 1 << 20
"""Characters and values that a recipe may stand for."""

_SIMPLE = re.compile(r"\$\{\s*(?:oc\.select\s*:)?\s*([^${},]*)(?:,[^${}]*)?\}")
"""An interpolation without another inside: the key that it refers to is the group."""

Path = tuple[str, ...]


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

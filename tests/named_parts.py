"""The parts that a composed recipe names, each with the role that its place asks for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def named_parts(config: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, str]]:
    """Yields the name of each part in a configuration at ``path`` of a recipe, and its role."""
    for key, value in config.items():
        if key == "_target_":
            yield value, _role(path)
        elif isinstance(value, dict):
            yield from named_parts(value, (*path, key))


def _role(path: tuple[str, ...]) -> str:
    if path[-1] == "network":  # the autoencoder's or the feature extractor's
        return path[-2]
    return "autoencoder" if path[-1] == "front" else path[-1]

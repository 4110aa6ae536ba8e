"""Which recipes are installed, ours and those of plugins."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable

from scm_media.build import nearest
from scm_media.recipe.source import SUFFIX, packages


@dataclass(frozen=True)
class Recipe:
    """A recipe as it stands in its file: its name, the header comment's lines, and the whole text."""

    name: str
    header: tuple[str, ...]
    text: str


def names() -> tuple[str, ...]:
    """Returns the names of every recipe that is installed, sorted."""
    return tuple(sorted(_files()))


def describe(name: str) -> Recipe:
    """Returns a recipe's name, header and text. Raises ValueError for an unknown one, naming the nearest."""
    files = _files()
    if name not in files:
        raise ValueError(unknown(name))
    text = files[name].read_text(encoding="utf-8")
    header = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        if not line.startswith("# @"):
            header.append(line.lstrip("# "))
    return Recipe(name, tuple(header), text)


def unknown(name: str) -> str:
    """Returns what to say of a recipe that there is not, with the nearest names."""
    known = names()
    return f"unknown recipe {name!r}{nearest(name, known)}; there are: {', '.join(known)}, or a path to a .yaml file"


def _files() -> dict[str, Traversable]:
    found: dict[str, Traversable] = {}
    for package in packages("recipes"):
        try:
            root = resources.files(package)
        except ModuleNotFoundError as error:
            raise ValueError(
                f"the package {package} of recipes cannot be imported: {error}; install it again"
            ) from error
        found = dict(_walk(root, "")) | found
    return found


def _walk(folder: Traversable, prefix: str) -> Iterator[tuple[str, Traversable]]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _walk(entry, f"{prefix}{entry.name}/")
        elif entry.name.endswith(SUFFIX):
            yield prefix + entry.name.removesuffix(SUFFIX), entry

"""Lists the installed recipes, ours and those of plugins."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from scm_media.recipe.source import SUFFIX, packages, read_text
from scm_media.typed import nearest


@dataclass(frozen=True)
class Recipe:
    """A recipe's file: its name, the lines of its header comment, and its text."""

    name: str
    header: tuple[str, ...]
    text: str


def names() -> tuple[str, ...]:
    """Returns the names of every recipe that is installed, sorted."""
    return tuple(sorted(_files()))


def describe(name_or_path: str) -> Recipe:
    """Returns the name, header and text of an installed recipe or of a user's file.

    Raises ValueError for an unknown one, naming the nearest, and for a file that is missing or no text.
    """
    name = name_or_path
    if (path := own_file(name_or_path)) is not None:
        name, text = path.stem, read_text(path)
    else:
        text = _files()[name].read_text(encoding="utf-8")
    header = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        if not line.startswith("# @"):
            header.append(line.lstrip("# "))
    return Recipe(name, tuple(header), text)


def own_file(name_or_path: str) -> Path | None:
    """Returns a user's recipe file, None for an installed recipe. A path ends in .yaml.

    Raises ValueError for an unknown recipe, naming the nearest, and for a missing file.
    """
    if not name_or_path.endswith(SUFFIX):
        if name_or_path.lower().endswith((".yml", SUFFIX)):
            raise ValueError(f"{name_or_path}: a recipe's file ends in {SUFFIX}; rename it")
        if name_or_path not in (known := names()):
            if Path(name_or_path).is_dir():
                raise ValueError(
                    f"{name_or_path} is a folder, expected a recipe: scm-media recipes --for FOLDER > mine.yaml "
                    "proposes one for the files of a folder"
                )
            near = nearest(name_or_path, known)
            listed = ", ".join(known)
            raise ValueError(f"unknown recipe {name_or_path!r}{near}; there are: {listed}, or a path to a .yaml file")
        return None
    path = Path(name_or_path)
    if not path.is_file():
        raise ValueError(f"{name_or_path}: no such file; a recipe is a YAML file or one of: {', '.join(names())}")
    if path.stat().st_size == 0:
        raise ValueError(
            f"{name_or_path}: the file is empty; what was to write it (scm-media recipes … > {path.name}) may have "
            "failed: run that again and read its message"
        )
    return path


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

"""Recipes: which there are, and composing one with overrides (Hydra) into a plain, complete, checked dictionary.

The search path, for a shipped recipe and for a user's file alike: the file's folder, ``scm_media.recipes``,
``scm_media.configs``, and what installed packages name by entry points of those two names.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from importlib.metadata import entry_points
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir, initialize_config_module
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf

from scm_media.build import nearest
from scm_media.recipe.errors import clear_errors
from scm_media.recipe.keys import check

SUFFIX = ".yaml"
HYDRA_VERSION_BASE = "1.3"


@dataclass(frozen=True)
class Recipe:
    """A recipe as it stands in its file: its name, the header comment's lines, and the whole text."""

    name: str
    header: tuple[str, ...]
    text: str


def names() -> tuple[str, ...]:
    """Names of every recipe that is installed, sorted."""
    return tuple(sorted(_files()))


def describe(name: str) -> Recipe:
    """The recipe's name, header and text. Raises ValueError for an unknown one, naming the nearest."""
    files = _files()
    if name not in files:
        raise ValueError(_unknown(name))
    text = files[name].read_text(encoding="utf-8")
    header = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        if not line.startswith("# @"):
            header.append(line.lstrip("# "))
    return Recipe(name, tuple(header), text)


def compose(name_or_path: str, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The recipe with Hydra overrides, resolved, as a plain dictionary with every key a recipe has.

    Raises ValueError, in one line, for an unknown recipe, an override that no key takes, a group's unknown option,
    a missing or unknown key, and a value of the wrong kind.
    """
    folder, primary = locate(name_or_path)
    overrides = [*overrides, *name_override(name_or_path, overrides)]
    with clear_errors(name_or_path, lambda: known_keys(name_or_path), names()):
        config = _compose(folder, primary, overrides)
    return finish(config, name_or_path)


def finish(config: DictConfig, source: str) -> dict[str, Any]:
    """The plain dictionary of a composed configuration, checked. Raises ValueError as ``compose`` does."""
    with clear_errors(source):
        plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    complete = {str(key): value for key, value in plain.items()}  # type: ignore[union-attr]
    check(complete, _base(), source)
    return complete


def locate(name_or_path: str) -> tuple[str | None, str]:
    """Hydra's primary configuration: its folder (None for an installed recipe) and its name without the suffix.

    A path is what ends in .yaml. Raises ValueError for an unknown recipe or a missing file.
    """
    if name_or_path.endswith(".yml"):
        raise ValueError(f"{name_or_path}: a recipe's file ends in {SUFFIX}; rename it")
    if not name_or_path.endswith(SUFFIX):
        if name_or_path not in names():
            raise ValueError(_unknown(name_or_path))
        return None, name_or_path
    path = Path(name_or_path)
    if not path.is_file():
        raise ValueError(f"{name_or_path}: no such file; a recipe is a YAML file or one of: {', '.join(names())}")
    return str(path.resolve().parent), path.stem


def name_override(name_or_path: str, overrides: Sequence[str]) -> list[str]:
    """``recipe=NAME`` when nobody says what the recipe is called: a user's file is called by its file name."""
    if not name_or_path.endswith(SUFFIX) or any(re.match(r"\+*recipe=", override) for override in overrides):
        return []
    with clear_errors(name_or_path):
        own = OmegaConf.load(name_or_path)
    if not isinstance(own, DictConfig):
        raise ValueError(f"{name_or_path}: a recipe is a mapping of keys, got a list")
    return [] if "recipe" in own else [f"++recipe={Path(name_or_path).stem}"]


def known_keys(name_or_path: str) -> list[str]:
    """Every dotted key of a recipe without overrides: what a mistyped override is compared with."""

    def walk(config: Mapping[Any, Any], prefix: str) -> Iterator[str]:
        for key, value in config.items():
            yield f"{prefix}{key}"
            if isinstance(value, Mapping):
                yield from walk(value, f"{prefix}{key}.")

    plain = OmegaConf.to_container(_compose(*locate(name_or_path), []), resolve=False)
    return list(walk(plain, ""))  # type: ignore[arg-type]


def register_search_path() -> None:
    """Makes Hydra find recipes and configurations, whether it composes here or runs its own command line."""
    Plugins.instance().register(_SearchPath)


class _SearchPath(SearchPathPlugin):
    """Puts recipes and configurations, ours and the plugins', behind the primary configuration's own place."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        for kind in ("recipes", "configs"):
            for package in _packages(kind):
                search_path.append(provider=package, path=f"pkg://{package}")


def _packages(kind: str) -> tuple[str, ...]:
    """Packages that hold "recipes" or "configs": ours first, then those of installed plugins by name."""
    group = f"scm_media.{kind}"
    return (group, *sorted({point.value for point in entry_points(group=group)}))


def _files() -> dict[str, Traversable]:
    found: dict[str, Traversable] = {}
    for package in _packages("recipes"):
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


def _unknown(name: str) -> str:
    known = names()
    return f"unknown recipe {name!r}{nearest(name, known)}; there are: {', '.join(known)}, or a path to a .yaml file"


def _compose(folder: str | None, primary: str, overrides: Sequence[str]) -> DictConfig:
    register_search_path()
    with _outside_of_hydra():
        if folder is None:
            start: Any = initialize_config_module("scm_media.recipes", version_base=HYDRA_VERSION_BASE)
        else:
            start = initialize_config_dir(folder, version_base=HYDRA_VERSION_BASE)
        with start:
            return hydra_compose(primary, overrides=list(overrides))


@contextmanager
def _outside_of_hydra() -> Iterator[None]:
    """Sets Hydra's global state aside, so that one can compose inside a job of a sweep too."""
    running = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        yield
    finally:
        GlobalHydra.instance().hydra = running  # Hydra may have made another instance meanwhile


@functools.cache
def _base() -> dict[str, Any]:
    """The keys that every recipe has, with values of the kind they take."""
    config = _compose(None, "base", ["recipe=base"])
    return OmegaConf.to_container(config, resolve=True)  # type: ignore[return-value]

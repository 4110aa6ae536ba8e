"""Composes a recipe with Hydra, and checks the result."""

from __future__ import annotations

import functools
import pickle
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra import version
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Override
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from scm_media import settings
from scm_media.recipe.errors import clear_errors
from scm_media.recipe.interpolation import allowed_resolvers, check_interpolations
from scm_media.recipe.listing import names, own_file
from scm_media.recipe.overrides import as_texts, check_overrides, escaped_interpolations, literal_texts, parse, quote
from scm_media.recipe.source import HYDRA, PRIMARY, SUFFIX, installed_files, read_own, searching, settings_refusal
from scm_media.recipe.taken_teacher import fill_nulls, take_over
from scm_media.recipe.written_folders import check_written_folders

HYDRA_VERSION_BASE = "1.3"

GROUPS = ("modality", "data", "autoencoder", "backbone")
"""Groups whose options have keys of their own."""

_OF_THE_JOB = {"overrides", "runtime"}, {"name", "config_name", "override_dirname", "id", "num"}
"""Keys of ``hydra``, and keys of ``hydra.job``, that Hydra fills in itself."""


def compose(name_or_path: str, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Returns the recipe with Hydra overrides, resolved, as a plain dictionary with every key a recipe has.

    Raises ValueError, in one line, for an unknown recipe, an override that cannot be read or that no key takes, a
    group's unknown option, a missing or unknown key, a value of the wrong kind or out of its range, a setting of
    Hydra's own in a file, an interpolation that calls a resolver that is not allowed, and as ``check_written_folders``.
    """
    return finish(_compose_checked(name_or_path, overrides, RunMode.RUN), name_or_path, overrides)


def check_sweep(name_or_path: str, overrides: Sequence[str]) -> None:
    """Checks a recipe before Hydra's own command line runs it. Raises ValueError as ``compose`` does.

    Values that are swept over are checked in each job, by ``finish``.
    """
    check_interpolations(_compose_checked(name_or_path, overrides, RunMode.MULTIRUN), name_or_path)


def finish(config: DictConfig, source: str, overrides: Sequence[str]) -> dict[str, Any]:
    """Returns the plain dictionary of a composed configuration, checked. Raises ValueError as ``compose`` does.

    overrides: those of the command line.
    """
    try:
        fill_nulls(config)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error
    check_interpolations(config, source)
    with clear_errors(source):
        plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    complete = {str(key): value for key, value in plain.items()}  # type: ignore[union-attr]
    as_texts(complete, source)
    try:
        complete = take_over(complete)
        settings.check(complete)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error
    check_written_folders(complete, overrides, source)
    return complete


def locate(name_or_path: str) -> tuple[Path | None, str]:
    """Returns a user's file (None for an installed recipe), and Hydra's name of the primary configuration.

    Raises ValueError for an unknown recipe or a missing file.
    """
    file = own_file(name_or_path)
    return file, name_or_path if file is None else PRIMARY


def name_override(name_or_path: str, overrides: Sequence[str]) -> list[str]:
    """Returns ``recipe=NAME``, the file's name, for a user's file whose recipe has no name of its own; else nothing."""
    if not name_or_path.endswith(SUFFIX) or any(re.match(r"\+*recipe=", override) for override in overrides):
        return []
    path = Path(name_or_path)
    return [] if "recipe" in read_own(path) else [f"++recipe={quote(escaped_interpolations(path.stem))}"]


def known_keys(name_or_path: str, overrides: Sequence[str] = ()) -> list[str]:
    """Returns every dotted key of a recipe, among which the nearest to a mistyped override is found.

    overrides: those that choose an option of a group (``data=manifest``) add the keys of this option.
    """

    def walk(config: Mapping[Any, Any], prefix: str) -> Iterator[str]:
        for key, value in config.items():
            yield f"{prefix}{key}"
            if isinstance(value, Mapping):
                yield from walk(value, f"{prefix}{key}.")

    config = _compose(*locate(name_or_path), list(filter(_chooses, overrides)), RunMode.RUN)
    plain = OmegaConf.to_container(config, resolve=False)
    return [key for key in walk(plain, "") if key.partition(".")[0] != HYDRA]  # type: ignore[arg-type]


def _chooses(override: str) -> bool:
    """Returns whether an override gives one of ``GROUPS`` one option."""
    read = parse(override)
    if read is None or read.is_sweep_override():
        return False
    return override.partition("=")[0] in GROUPS and isinstance(read.value(), str)


def _compose_checked(name_or_path: str, overrides: Sequence[str], mode: RunMode) -> DictConfig:
    """Returns the composed recipe; raises ValueError if a file changed Hydra's own settings, which are left out."""
    file, primary = locate(name_or_path)
    words = literal_texts([*overrides, *name_override(name_or_path, overrides)])
    check_overrides(words, name_or_path, mode == RunMode.MULTIRUN)
    with clear_errors(name_or_path, lambda: known_keys(name_or_path, words), names()):
        config = _compose(file, primary, words, mode)
    by_hand = tuple(word for word in words if _is_hydras(word))
    if (key := _differing_key(_settings(config), _hydra_settings(by_hand, mode), HYDRA)) is not None:
        raise ValueError(settings_refusal(name_or_path, key))
    with open_dict(config):
        del config[HYDRA]
    return config


def _compose(file: Path | None, primary: str | None, overrides: Sequence[str], mode: RunMode) -> DictConfig:
    """Returns a configuration with Hydra's own settings; only the names in lists of defaults are resolved.

    ``hydra.compose`` is the public way, but it has no run mode and drops Hydra's own settings, which are checked here;
    ``hydra.initialize`` reads the sources of all callers only to resolve a folder, and there is none here.
    An installed recipe is composed once a process with the same options of groups: values that are set in it afterwards
    cost a fifth of composing it.
    """
    with searching(file), _outside_of_hydra(), allowed_resolvers():
        version.setbase(HYDRA_VERSION_BASE)
        hydra = Hydra.create_main_hydra2("scm-media", create_config_search_path(None))
        if file is not None or mode != RunMode.RUN or any(map(_is_hydras, overrides)):
            return hydra.compose_config(primary, list(overrides), mode, with_log_configuration=False, from_shell=False)
        options, values = _divide(hydra, overrides)
        config: DictConfig = pickle.loads(_composed(primary, options, installed_files()))
        ConfigLoaderImpl._apply_overrides_to_config(values, config)
        return config


def _divide(hydra: Hydra, overrides: Sequence[str]) -> tuple[tuple[str, ...], list[Override]]:
    """Returns the overrides that choose options of groups, and the others as Hydra reads them.

    Hydra composes with the first ones and then sets the others, a dictionary for a whole group among them. Raises
    ValueError for a group that is given a number or null.
    """
    loader = hydra.config_loader
    assert isinstance(loader, ConfigLoaderImpl)
    options, values = [], []
    for override in overrides:
        read = parse(override)
        if read is not None:
            group, value = loader.repository.group_exists(read.key_or_group), read.value()
            if not group or isinstance(value, dict):
                values.append(read)
                continue
            if not isinstance(value, str | list) and not read.is_delete():
                raise ValueError(
                    f"got the override {override!r}: {read.key_or_group} is a group, and an option of it is chosen by "
                    f"its name, as in {read.key_or_group}=NAME"
                )
        options.append(override)
    return tuple(options), values


@functools.lru_cache(maxsize=64)
def _composed(primary: str | None, options: tuple[str, ...], files: tuple[tuple[str, int, int], ...]) -> bytes:
    """Returns an installed recipe with options of groups alone, pickled; for other files it is composed again."""
    hydra = GlobalHydra.instance().hydra
    assert hydra is not None
    config = hydra.compose_config(primary, list(options), RunMode.RUN, with_log_configuration=False, from_shell=False)
    return pickle.dumps(config)


@contextmanager
def _outside_of_hydra() -> Iterator[None]:
    """Sets Hydra's global state aside, so that a job of a sweep can compose another recipe."""
    running = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        yield
    finally:
        GlobalHydra.instance().hydra = running


def _is_hydras(override: str) -> bool:
    parsed = parse(override)
    return parsed is not None and (parsed.is_hydra_override() or parsed.key_or_group == HYDRA)


@functools.lru_cache(maxsize=16)
def _hydra_settings(overrides: tuple[str, ...], mode: RunMode) -> dict[str, Any]:
    """Returns Hydra's own settings that follow from the command line alone."""
    with clear_errors("Hydra's settings"):
        return _settings(_compose(None, None, overrides, mode))


def _settings(config: DictConfig) -> dict[str, Any]:
    """Returns Hydra's own settings in a configuration, unresolved, without what Hydra fills in."""
    plain: Any = OmegaConf.to_container(config[HYDRA], resolve=False)
    job = {key: value for key, value in plain["job"].items() if key not in _OF_THE_JOB[1]}
    return {**{key: value for key, value in plain.items() if key not in _OF_THE_JOB[0]}, "job": job}


def _differing_key(one: Mapping[Any, Any], other: Mapping[Any, Any], prefix: str) -> str | None:
    """Returns the first dotted key in which two configurations differ, None if they are equal."""
    for key in [*one, *(key for key in other if key not in one)]:
        name = f"{prefix}.{key}"
        if (key in one) != (key in other):
            return name
        left, right = one[key], other[key]
        if isinstance(left, Mapping) and isinstance(right, Mapping):
            if (found := _differing_key(left, right, name)) is not None:
                return found
        elif left != right:
            return name
    return None

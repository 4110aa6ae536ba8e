"""Tells Hydra where recipes and configurations are: a user's file and its folder, ours, and installed packages'.

Three classes of ``hydra._internal`` are used. ``FileConfigSource`` reads and lists a folder of YAML files, and
``ImportlibResourcesConfigSource`` those of a package: the public ``ConfigSource`` would need the same code again.
``CachingConfigRepository`` is the only place that sees each configuration that a composition asks for, so only there
can their number be bounded.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any, ClassVar

from hydra._internal import config_loader_impl
from hydra._internal.config_repository import CachingConfigRepository, IConfigRepository
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra._internal.core_plugins.importlib_resources_config_source import ImportlibResourcesConfigSource
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigLoadError, ConfigResult
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf

from scm_media import reading
from scm_media.plugins import plugins
from scm_media.recipe.errors import clear_errors
from scm_media.settings import Recipe, default_values

SUFFIX = ".yaml"
BASE = "base"
"""The configuration that every shipped recipe inherits; a file of that name beside a user's recipe is another one."""

DEFAULTS = "recipe-defaults"
"""Hydra's name for the defaults of the settings, which the configuration ``base`` inherits."""

PRIMARY = "this-recipe"
"""Hydra's name for a user's file, whatever it is called: names of files are no names of configurations."""

HYDRA = "hydra"

MAX_INTERPOLATED = 20_000
"""The largest number of characters in a file's texts with interpolations; Hydra's parser takes seconds for more."""

MAX_INHERITED = 500
"""The largest number of configurations in a recipe, each as often as it is inherited; ours have thirty."""


class Installed(ImportlibResourcesConfigSource):
    """The configurations of a package, ours, a plugin's or Hydra's, each of which is parsed once a process.

    OmegaConf's parsing is a quarter of the time of a composition, and a copy takes a twentieth of it.
    """

    @staticmethod
    def scheme() -> str:
        """Returns the scheme of the search path's entry, which names the package."""
        return "installed"

    def load_config(self, config_path: str) -> ConfigResult:
        """Reads a configuration, again only if its file has changed."""
        file = Path(str(resources.files(self.path)), self._normalize_file_name(config_path))
        try:
            about = file.stat()
        except OSError:  # in an archive
            return super().load_config(config_path)
        key = (str(file), about.st_mtime_ns, about.st_size)
        if key not in _PARSED:
            _PARSED[key] = pickle.dumps(super().load_config(config_path))
        result: ConfigResult = pickle.loads(_PARSED[key])
        return result


_PARSED: dict[tuple[str, int, int], bytes] = {}


class OwnFile(FileConfigSource):
    """A user's recipe file under the name ``PRIMARY``, and the files and groups beside it under their own.

    Hydra's own settings (the key ``hydra``, the groups below ``hydra/``) name code that Hydra runs: no file may hold
    them, neither the recipe nor what it inherits.
    """

    def __init__(self, provider: str, path: str) -> None:
        super().__init__(provider, path)
        self.file = Path(self.path)
        self.path = str(self.file.parent)

    @staticmethod
    def scheme() -> str:
        """Returns the scheme of the search path's entry, which names the recipe's file."""
        return "recipe-file"

    def load_config(self, config_path: str) -> ConfigResult:
        """Reads a file. Raises ValueError, naming it, if it is no recipe or changes Hydra's own settings."""
        file = self._find(config_path)
        if file is None:
            raise ConfigLoadError(f"Config not found: {config_path}")
        text = read_text(file)
        config, header = _parse(file, text), _header(file, text)
        inherited = _list_defaults(config)
        if HYDRA in config or _first_part(header.get("package") or "") == HYDRA or any(map(_is_hydras, inherited)):
            raise ValueError(settings_refusal(str(file), HYDRA))
        if BASE in inherited and self._shadows(BASE) and self.file.name != f"{BASE}{SUFFIX}":
            raise ValueError(
                f"{file} inherits {BASE!r}, which is the shipped one and {self.path}/{BASE}{SUFFIX}: rename "
                f"the file, or write /{BASE} for the shipped one"
            )
        return ConfigResult(config=config, path=self.full_path(), provider=self.provider, header=header)

    def is_config(self, config_path: str) -> bool:
        """Returns whether there is a file of this name that recipes may inherit."""
        return self._find(config_path) is not None

    def is_group(self, config_path: str) -> bool:
        """Returns whether there is a folder of this name that recipes may choose from."""
        return config_path.partition("/")[0] != HYDRA and super().is_group(config_path)

    def _find(self, config_path: str) -> Path | None:
        name = config_path.removesuffix(SUFFIX)
        if name == PRIMARY:
            return self.file
        if name in (BASE, DEFAULTS) or name.partition("/")[0] == HYDRA:
            return None
        file = Path(self.path, f"{name}{SUFFIX}")
        return file if file.is_file() else None

    def _shadows(self, name: str) -> bool:
        return Path(self.path, f"{name}{SUFFIX}").is_file()


def settings_refusal(source: str, key: str) -> str:
    """Returns why a recipe may not set a key of Hydra's own, and what to do instead."""
    return (
        f"{source} sets {key}: Hydra's own settings name code that it runs, so they are taken from the command line "
        f"alone; take them out, and pass them as in  scm-media train RECIPE -m {HYDRA}/launcher=submitit_slurm"
    )


def read_own(file: Path) -> DictConfig:
    """Returns a recipe file, unresolved. Raises ValueError, naming the file, if it is no recipe."""
    return _parse(file, read_text(file))


def packages(kind: str) -> tuple[str, ...]:
    """Returns the packages that hold "recipes" or "configs": ours first, then those of plugins by name."""
    return (f"scm_media.{kind}", *sorted({point.value for point in plugins(kind)}))


def installed_files() -> tuple[tuple[str, int, int], ...]:
    """Returns the installed recipes and configurations, each with its time and size, by which a change is noticed."""
    found = []
    for kind in ("recipes", "configs"):
        for package in packages(kind):
            try:
                folder = Path(str(resources.files(package)))
            except ModuleNotFoundError:  # Hydra passes over a plugin that is not there any more
                continue
            for file in folder.rglob(f"*{SUFFIX}"):
                about = file.stat()
                found.append((str(file), about.st_mtime_ns, about.st_size))
    return tuple(found)


def _store_defaults() -> None:
    """Registers the defaults of the settings with Hydra.

    They are plain values: OmegaConf's own types would convert what does not fit ("5" to 5), and know neither bounds nor
    ``Literal``; ``scm_media.settings.check`` checks the composed recipe.
    """
    if f"{DEFAULTS}{SUFFIX}" not in ConfigStore.instance().repo:
        ConfigStore.instance().store(DEFAULTS, default_values(Recipe))


@contextmanager
def searching(file: Path | None) -> Iterator[None]:
    """Lets Hydra find, inside, a user's file and its folder, our configurations, and those of plugins, in this order.

    This holds for its own command line too. A composition takes at most ``MAX_INHERITED`` configurations.
    """
    Plugins.instance().register(OwnFile)
    Plugins.instance().register(Installed)
    Plugins.instance().register(_SearchPath)
    _store_defaults()
    before, _SearchPath.file = _SearchPath.file, file
    hydras: Any = config_loader_impl
    unbounded, hydras.CachingConfigRepository = hydras.CachingConfigRepository, _Bounded
    try:
        yield
    finally:
        _SearchPath.file, hydras.CachingConfigRepository = before, unbounded


class _Bounded(CachingConfigRepository):
    """Hydra's store of configurations with a bound on their number, since lists of defaults may double."""

    def __init__(self, delegate: IConfigRepository) -> None:
        super().__init__(delegate)
        self.num = 0

    def load_config(self, config_path: str) -> ConfigResult | None:
        """Returns a configuration; raises ValueError after ``MAX_INHERITED`` of them."""
        self.num += 1
        if self.num > MAX_INHERITED:
            raise ValueError(
                f"{_SearchPath.file or 'the recipe'} inherits more than {MAX_INHERITED} configurations: its lists of "
                "defaults are too long, or go in a circle"
            )
        return super().load_config(config_path)


class _SearchPath(SearchPathPlugin):
    file: ClassVar[Path | None] = None

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        if self.file is not None:
            search_path.append(provider="recipe", path=f"{OwnFile.scheme()}://{self.file.absolute()}")
        for kind in ("recipes", "configs"):
            for package in packages(kind):
                search_path.append(provider=package, path=f"{Installed.scheme()}://{package}")
        for entry in search_path.get_path():
            if entry.path == "pkg://hydra.conf":
                entry.path = f"{Installed.scheme()}://hydra.conf"


def read_text(file: Path) -> str:
    """Returns the text of a recipe file.

    Raises ValueError for one that is not UTF-8, no regular file or no YAML, as ``reading.parse_yaml``, and for more
    than ``MAX_INTERPOLATED`` characters of texts with interpolations, which Hydra's parser takes seconds for.
    """
    text = reading.read_text(file, reading.MAX_BYTES_OF_YAML)
    found = reading.parse_yaml(text, str(file))
    if (num := _count_interpolated(found, {})) > MAX_INTERPOLATED:
        raise ValueError(
            f"{file}: texts with interpolations (${{…}}) have {num} characters, expected at most {MAX_INTERPOLATED}"
        )
    return text


def _count_interpolated(value: Any, counted: dict[int, int]) -> int:
    """Returns the characters of all texts with interpolations, each alias counted as what it stands for."""
    if not isinstance(value, dict | list | tuple):
        return len(value) if isinstance(value, str) and "${" in value else 0
    if id(value) not in counted:
        counted[id(value)] = 0  # an alias to what it stands in is not followed again
        parts = value.values() if isinstance(value, dict) else value
        counted[id(value)] = sum(_count_interpolated(each, counted) for each in parts)
    return counted[id(value)]


def _parse(file: Path, text: str) -> DictConfig:
    stream = io.StringIO(text)
    stream.name = str(file)
    with clear_errors(str(file)):
        try:
            config = OmegaConf.load(stream)
        except OSError as error:  # what OmegaConf raises for a text that is one value
            raise ValueError(f"{file}: a recipe is a mapping of keys, got one value") from error
    if not isinstance(config, DictConfig):
        raise ValueError(f"{file}: a recipe is a mapping of keys, got a list")
    return config


def _header(file: Path, text: str) -> dict[str, str | None]:
    try:
        return OwnFile._get_header_dict(text[:512])
    except ValueError as error:
        raise ValueError(f"{file}: a comment that begins with # @ is Hydra's: {error}") from error


def _list_defaults(config: DictConfig) -> list[str]:
    """Returns the entries of a list of defaults: configurations, and the keys of groups."""
    plain: Any = OmegaConf.to_container(config, resolve=False)
    listed = plain.get("defaults")
    entries = listed if isinstance(listed, list) else []
    return [str(word) for entry in entries for word in (entry if isinstance(entry, dict) else [entry])]


def _is_hydras(entry: str) -> bool:
    """Returns whether an entry (``override hydra/job_logging``, ``other@hydra.callbacks``) sets what Hydra runs."""
    group, _, package = entry.rpartition(" ")[2].lstrip("/").partition("@")
    return group.partition("/")[0] == HYDRA or _first_part(package) == HYDRA


def _first_part(package: str) -> str:
    parts = [part for part in package.split(".") if part not in ("_global_", "_here_", "_group_", "")]
    return parts[0] if parts else ""

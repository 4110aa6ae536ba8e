"""Reads the configurations of installed packages once a process, and reads them again where their files have changed.

``ImportlibResourcesConfigSource`` of ``hydra._internal`` reads them, as it does for Hydra's own scheme ``pkg``.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.importlib_resources_config_source import ImportlibResourcesConfigSource
from hydra.plugins.config_source import ConfigResult

_READ: dict[tuple[str, str], tuple[tuple[int, int], bytes]] = {}
"""By package and file, the file's time and size when it was read, and what was read."""


class Installed(ImportlibResourcesConfigSource):
    """The configurations of a package: parsing a recipe's thirty files takes a third of the time to compose it."""

    @staticmethod
    def scheme() -> str:
        """Returns the scheme of the search path's entry, which names the package."""
        return "installed"

    def _read_config(self, res: Any) -> ConfigResult:
        if not isinstance(res, Path):  # within an archive
            return super()._read_config(res)
        about = res.stat()
        key, state = (self.path, str(res)), (about.st_mtime_ns, about.st_size)
        before, kept = _READ.get(key, (None, b""))
        if before != state:
            kept = pickle.dumps(super()._read_config(res))
            _READ[key] = state, kept
        return pickle.loads(kept)  # a copy, since composing changes it

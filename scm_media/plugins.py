"""Lists installed plugins, and the packages whose code a configuration may use: ours, plugins', and the user's own."""

from __future__ import annotations

import functools
import importlib
import os
import sys
from importlib.metadata import EntryPoint, entry_points

ALLOW_VARIABLE = "SCM_MEDIA_ALLOW"
"""The environment variable with the user's own packages, separated by commas."""
OWN_PACKAGES = ("scm_media", "modalities")


def allowed_packages() -> frozenset[str]:
    """Returns the top-level packages whose modules may be imported: ours, plugins', and those of SCM_MEDIA_ALLOW."""
    found = (point.module.partition(".")[0] for point in plugins("modalities"))
    return frozenset((*OWN_PACKAGES, *found, *_allowed_by_user()))


def import_plugins() -> dict[str, str]:
    """Imports plugins and the user's own packages, so that they register what they bring.

    Returns the packages that could not be imported, each with the reason.
    """
    modules = {point.module for point in plugins("modalities") if point.module.partition(".")[0] not in OWN_PACKAGES}
    failed = {}
    for module in sorted(modules | set(_allowed_by_user())):
        try:
            importlib.import_module(module)
        except Exception as error:  # whatever a stranger's module raises while it is imported
            failed[module] = f"{type(error).__name__}: {error}"
    return failed


def plugins(kind: str) -> tuple[EntryPoint, ...]:
    """Returns the entry points of the group ``scm_media.KIND``: modalities, recipes or configs."""
    return _read(f"scm_media.{kind}", tuple(sys.path))


@functools.cache
def _read(group: str, path: tuple[str, ...]) -> tuple[EntryPoint, ...]:
    """Reads the metadata of all installed packages, which takes tens of milliseconds, once for each search path."""
    return tuple(entry_points(group=group))


def _allowed_by_user() -> list[str]:
    return [package.strip() for package in os.environ.get(ALLOW_VARIABLE, "").split(",") if package.strip()]

"""The packages whose code a configuration may use: ours, installed plugins, and those that the user allows."""

from __future__ import annotations

import functools
import importlib
import os
from importlib.metadata import EntryPoint, entry_points

ALLOW_VARIABLE = "SCM_MEDIA_ALLOW"
"""The environment variable with the user's own packages, separated by commas."""
OWN_PACKAGES = ("scm_media", "modalities")


def allowed_packages() -> frozenset[str]:
    """Returns the top-level packages whose modules may be imported: ours, plugins', and those of SCM_MEDIA_ALLOW."""
    plugins = (point.module.partition(".")[0] for point in _entry_points())
    return frozenset((*OWN_PACKAGES, *plugins, *_allowed_by_user()))


def import_plugins() -> dict[str, str]:
    """Imports plugins and the user's own packages, so that they register what they bring.

    Returns the packages that could not be imported, each with the reason.
    """
    modules = {point.module for point in _entry_points() if point.module.partition(".")[0] not in OWN_PACKAGES}
    failed = {}
    for module in sorted(modules | set(_allowed_by_user())):
        try:
            importlib.import_module(module)
        except Exception as error:  # whatever a stranger's module raises while it is imported
            failed[module] = f"{type(error).__name__}: {error}"
    return failed


@functools.cache
def _entry_points() -> tuple[EntryPoint, ...]:
    return tuple(entry_points(group="scm_media.modalities"))


def _allowed_by_user() -> list[str]:
    return [package.strip() for package in os.environ.get(ALLOW_VARIABLE, "").split(",") if package.strip()]

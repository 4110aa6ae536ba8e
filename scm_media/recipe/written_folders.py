"""Refuses recipes whose file names a folder to write to that lies outside the working directory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

WRITTEN = ("run_dir", "data.index")
"""Keys of the folders that a run writes to, besides each text of a logger, which joins it to its folder."""


def check_written_folders(config: Mapping[str, Any], overrides: Sequence[str], source: str) -> None:
    """Raises ValueError for a folder outside the working directory that a recipe's file names as one to write to.

    A recipe may come from a stranger, while the command line is the user's own choice. The folder that the file lies in
    is allowed: a run keeps its recipe in its own folder.
    """
    by_hand = {override.lstrip("+").partition("=")[0] for override in overrides}
    logger = config.get("logger")
    for key in [*WRITTEN, *(f"logger.{name}" for name in (logger if isinstance(logger, Mapping) else ()))]:
        value: Any = config
        for part in key.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        if isinstance(value, str) and key not in by_hand and _leaves(value) and not _is_beside(value, source):
            raise ValueError(
                f"{source}: {key} is {value!r}, which lies outside the working directory; a recipe's file may not "
                f"choose such a folder to write to: pass {key}=… on the command line"
            )


def _is_beside(folder: str, source: str) -> bool:
    """Returns whether a folder lies in the folder of a recipe's file."""
    file = Path(source)
    return file.is_file() and Path(folder).expanduser().resolve().is_relative_to(file.resolve().parent)


def _leaves(folder: str) -> bool:
    """Returns whether a path, of any system, may lead out of the folder that it is relative to."""
    paths = PurePosixPath(folder), PureWindowsPath(folder)
    return folder.startswith("~") or any(path.is_absolute() or path.drive or ".." in path.parts for path in paths)

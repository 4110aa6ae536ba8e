"""What files that go to others say of this machine: names of files, and no folders."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

NAMED_BY_USERS = frozenset({"labels", "classes", "captions"})
"""Keys below which a text that begins with a slash is a name that a user gave, and no place."""


def without_folders(value: Any) -> Any:
    """Returns a tree of plain values in which every absolute path, of any system, is cut to its last part."""
    if isinstance(value, Mapping):
        return {key: each if key in NAMED_BY_USERS else without_folders(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [without_folders(each) for each in value]
    return base_name(value) if isinstance(value, str) else value


def base_name(text: str) -> str:
    """Returns the last part of an absolute path, or of one below a home folder; any other text as it is."""
    for kind in (PurePosixPath, PureWindowsPath):
        path = kind(text)
        if path.is_absolute() or text.startswith("~"):
            return path.name or text
    return text

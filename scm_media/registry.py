"""Registers of functions that a recipe chooses by a short name, such as samplers and mask types.

A function is registered by a decorator, so that a new one touches no other file. A name that is not registered makes
plugins and the packages of ``SCM_MEDIA_ALLOW`` be imported, which register theirs (``scm_media.plugins``).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Generic, TypeVar

from scm_media.plugins import import_plugins
from scm_media.typed import show

Entry = TypeVar("Entry")


class Registry(Generic[Entry]):
    """Entries by name, in the order of their registration; kind: what an entry is, for error messages."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, Entry] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def add(self, name: str, entry: Entry) -> None:
        """Registers an entry; raises ValueError for a name that is taken."""
        if name in self._entries:
            raise ValueError(f"there is a {self.kind} named {name!r} already: choose another name")
        self._entries[name] = entry

    def find(self, name: Any, key: str) -> Entry:
        """Returns the entry of a name; raises ValueError that names the key and all names for an unknown one."""
        failed = {} if name in self._entries else import_plugins()
        if name not in self._entries:
            reasons = "".join(f"; {module} could not be imported ({reason})" for module, reason in failed.items())
            raise ValueError(f"{key} must be one of {', '.join(self._entries)}, got {show(name)}{reasons}")
        return self._entries[name]

"""Records by an audit hook what code writes, runs and connects to."""

from __future__ import annotations

import os
import sys
from collections import Counter
from typing import Any

CHANGES = ("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.symlink", "shutil.rmtree")
"""Audit events that change a file system."""


class Watch:
    """Records by an audit hook what code does outside the folder that it may write to."""

    def __init__(self) -> None:
        self.folder = ""
        self.noted: Counter[str] = Counter()
        self.active = False
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.active:
            return
        if event == "open" and _writes(arguments) and not self._may_write(arguments[0]):
            self.noted[f"wrote {arguments[0]}"] += 1
        elif event in ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "socket.connect", "os.kill"):
            self.noted[event] += 1
        elif event in CHANGES and not self._may_write(arguments[0]):
            self.noted[f"{event} {arguments[0]}"] += 1

    def _may_write(self, path: Any) -> bool:
        if isinstance(path, int):
            return True
        text = os.path.abspath(os.fsdecode(path))
        return text.startswith((self.folder, "/dev/null", "/dev/shm", "/proc/self"))


def _writes(arguments: tuple[Any, ...]) -> bool:
    _, mode, flags = (*arguments, None, None)[:3]
    if isinstance(mode, str):
        return any(letter in mode for letter in "wax+")
    return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR))

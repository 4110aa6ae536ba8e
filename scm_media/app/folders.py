"""This module gives each session a private folder whose name nobody can guess, and deletes it when the session ends."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Iterable
from pathlib import Path

IDLE_SECONDS = 3600.0
"""Files of no open page stay so long: those of the REST interface, and uploads that nobody used."""
OPEN_SECONDS = 24 * 3600.0
"""Files of a page that nobody uses stay so long, where the page was never said to be closed."""
SWEEP_SECONDS = 60.0
RESULTS = "results"
"""All private folders lie in this folder; uploads lie beside it."""

logger = logging.getLogger("scm_media.app")


class Folders:
    """This keeps the private folders of all sessions, below one root that only the server's user may read.

    place: where the root is made; None for the system's folder for temporary files.
    """

    def __init__(self, place: Path | None = None, idle: float = IDLE_SECONDS) -> None:
        if place is not None:
            place.mkdir(parents=True, exist_ok=True)
        self.root = Path(tempfile.mkdtemp(prefix="scm-media-", dir=place)).resolve()
        self.idle = idle
        self._of: dict[str, Path] = {}
        self._claims: dict[str, set[Path]] = {}
        self._used: dict[str, float] = {}
        self._open: set[str] = set()
        self._lock = threading.Lock()
        self._closed = threading.Event()
        threading.Thread(target=self._sweep_now_and_then, daemon=True).start()

    def folder(self, session: str) -> Path:
        """Returns the folder of a session; it is made when it is first asked for."""
        with self._lock:
            self._used[session] = time.monotonic()
            if session not in self._of:
                self._of[session] = self.root / RESULTS / secrets.token_urlsafe(24)
            self._of[session].mkdir(mode=0o700, parents=True, exist_ok=True)
            return self._of[session]

    def open(self, session: str) -> None:
        """Notes that a page is open, so that its files stay until ``end``, or for a day without use."""
        with self._lock:
            self._used[session] = time.monotonic()
            self._open.add(session)

    def claim(self, session: str, file: Path) -> None:
        """Lets an uploaded file below the root be deleted together with the session's folder.

        Raises ValueError for anything else, such as a folder, or a file of a session: a program may name any path.
        """
        path = file.resolve()
        if not path.is_file() or not path.is_relative_to(self.root) or path.is_relative_to(self.root / RESULTS):
            raise ValueError(f"{file.name} is no uploaded file, or was deleted since: upload it again")
        with self._lock:
            self._used[session] = time.monotonic()
            self._claims.setdefault(session, set()).add(path)

    def end(self, session: str) -> None:
        """Deletes what belongs to a session."""
        with self._lock:
            self._open.discard(session)
            self._used.pop(session, None)
            gone: list[Path] = [*self._claims.pop(session, ())]
            kept = {file for files in self._claims.values() for file in files}
            if (folder := self._of.pop(session, None)) is not None:
                gone.append(folder)
        _delete(path for path in gone if path not in kept)

    def sweep(self) -> None:
        """Deletes what was not used for ``idle`` seconds, or for a day where it belongs to an open page."""
        now = time.monotonic()
        with self._lock:
            stale = [
                each
                for each, used in self._used.items()
                if now - used > (OPEN_SECONDS if each in self._open else self.idle)
            ]
            kept = {file for files in self._claims.values() for file in files}
        for session in stale:
            self.end(session)
        oldest = time.time() - self.idle
        for folder, below, files in os.walk(self.root):  # which leaves out what is deleted meanwhile
            if Path(folder) == self.root and RESULTS in below:
                below.remove(RESULTS)
            for file in (Path(folder) / name for name in files):
                if file not in kept and _changed(file) < oldest:
                    _delete([file])

    def close(self) -> None:
        """Deletes everything."""
        self._closed.set()
        shutil.rmtree(self.root, ignore_errors=True)

    def _sweep_now_and_then(self) -> None:
        while not self._closed.wait(SWEEP_SECONDS):
            try:
                self.sweep()
            except OSError:  # the next time may go better
                logger.exception("files that nobody uses could not be deleted")


def _changed(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except FileNotFoundError:
        return time.time()


def _delete(paths: Iterable[Path]) -> None:
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)

"""This module lets the newest request of each page take its turn, while those that waited before it are left out."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Newest:
    """This keeps order among the requests of each session: one at a time, and the newest next.

    Sessions do not wait for each other here. So a page that sends many requests keeps one worker busy, not all of them.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._numbers = itertools.count()
        self._newest: dict[str, int] = {}
        self._running: set[str] = set()

    @contextmanager
    def turn(self, session: str) -> Iterator[bool]:
        """Yields true when nothing of the session runs any more, or false as soon as a newer request of it has come."""
        with self._changed:
            own = self._newest[session] = next(self._numbers)
            self._changed.notify_all()
            self._changed.wait_for(lambda: session not in self._running or self._newest.get(session) != own)
            taken = self._newest.get(session) == own
            if taken:
                self._running.add(session)
        try:
            yield taken
        finally:
            if taken:
                with self._changed:
                    self._running.discard(session)
                    if self._newest[session] == own:
                        del self._newest[session]
                    self._changed.notify_all()

"""Shows the progress of a long job on standard error: one changing line on a terminal, a few lines elsewhere."""

from __future__ import annotations

import os
import sys
import time

SECONDS_BETWEEN_LINES = 30.0
SECONDS_BETWEEN_CHANGES = 0.1
"""Seconds between two states of the line on a terminal."""


class Progress:
    """Prints, where it is called with a job's name, how much of it is done, how much there is, and the time left.

    seconds: those that go by before the first line; None for none on a terminal, and half a minute elsewhere. Of the
    processes that divide a training on a machine (LOCAL_RANK) the first one alone prints.
    """

    def __init__(self, seconds: float | None = None) -> None:
        self._terminal = sys.stderr.isatty()
        self._silent = os.environ.get("LOCAL_RANK", "0") != "0"
        self._between = SECONDS_BETWEEN_CHANGES if self._terminal else SECONDS_BETWEEN_LINES
        self._next = time.monotonic() + (seconds if seconds is not None else 0.0 if self._terminal else self._between)
        self._job = ""
        self._begun, self._found = 0.0, 0
        self._shown = False

    def __call__(self, what: str, done: int, total: int) -> None:
        """Prints the progress where it is time, and on a terminal the end of a job of which something was shown.

        The time left follows from what was done since the first call with this name.
        """
        now = time.monotonic()
        if what != self._job:
            self._job, self._begun, self._found = what, now, done
        ends = self._terminal and self._shown and done >= total
        if self._silent or (now < self._next and not ends):
            return
        self._next = now + self._between
        self._shown = done < total
        left = 0.0 if done <= self._found else (now - self._begun) / (done - self._found) * (total - done)
        told = f"{what}: {done} of {total}" + (f", {int(left) // 60}:{int(left) % 60:02d} left" if left >= 1 else "")
        if self._terminal:
            print(f"\r\x1b[K{told}", end="\n" if done >= total else "", file=sys.stderr, flush=True)
        else:
            print(told, file=sys.stderr, flush=True)

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

    seconds: the time before the first line. With None, a terminal shows the first line at once, and anything else after
    half a minute. Of the processes that divide a training on a machine (LOCAL_RANK) the first one alone prints.
    """

    def __init__(self, seconds: float | None = None) -> None:
        self._silent = sys.stderr is None or os.environ.get("LOCAL_RANK", "0") != "0"
        self._terminal = not self._silent and sys.stderr.isatty()
        self._between = SECONDS_BETWEEN_CHANGES if self._terminal else SECONDS_BETWEEN_LINES
        wait = seconds if seconds is not None else 0.0 if self._terminal else self._between
        self._next = self._earliest = time.monotonic() + wait
        self._job, self._begun = "", 0.0
        self._done_before = self._done = 0
        self._shown = False

    def __call__(self, what: str, done: int, total: int) -> None:
        """Prints the progress where it is time, and on a terminal the beginning and the end of each job, too.

        The time left follows from what was done since this job's first call.
        """
        now = time.monotonic()
        if what != self._job or done < self._done:
            self._job, self._begun, self._done_before, self._shown = what, now, done, False
            if self._terminal:
                self._next = max(self._earliest, min(self._next, now))
        self._done = done
        ends = self._terminal and self._shown and done >= total
        if self._silent or (now < self._next and not ends):
            return
        self._next = now + self._between
        self._shown = done < total
        made = done - self._done_before
        left = (now - self._begun) / made * (total - done) if made > 0 else 0.0
        told = f"{what}: {done} of {total}" + (f", {int(left) // 60}:{int(left) % 60:02d} left" if left >= 1 else "")
        if self._terminal:
            print(f"\r\x1b[K{told}", end="\n" if done >= total else "", file=sys.stderr, flush=True)
        else:
            print(told, file=sys.stderr, flush=True)

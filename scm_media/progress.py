"""Shows the progress of a long command on standard error: one changing line on a terminal, a few lines elsewhere."""

from __future__ import annotations

import sys
import time

SECONDS_BETWEEN_LINES = 30.0


class Progress:
    """Prints, where it is called with a job's name, how much of it is done and how much there is."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._printed = time.monotonic()

    def __call__(self, what: str, done: int, total: int) -> None:
        """Prints the progress: every time on a terminal, otherwise twice a minute."""
        if self._terminal:
            print(f"\r\x1b[K{what}: {done} of {total}", end="\n" if done >= total else "", file=sys.stderr, flush=True)
            return
        now = time.monotonic()
        if now - self._printed >= SECONDS_BETWEEN_LINES:
            self._printed = now
            print(f"{what}: {done} of {total}", file=sys.stderr, flush=True)

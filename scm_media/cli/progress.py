"""How far a long command is, on standard error: one line that changes on a terminal, a few plain ones elsewhere."""

from __future__ import annotations

import sys
import time

SECONDS_BETWEEN_LINES = 30.0


class Progress:
    """Called with what is done, how much of it, and how much there is."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._said = time.monotonic()

    def __call__(self, what: str, done: int, total: int) -> None:
        """Says it: every time on a terminal, else twice a minute."""
        if self._terminal:
            print(f"\r\x1b[K{what}: {done} of {total}", end="\n" if done >= total else "", file=sys.stderr, flush=True)
            return
        now = time.monotonic()
        if now - self._said >= SECONDS_BETWEEN_LINES:
            self._said = now
            print(f"{what}: {done} of {total}", file=sys.stderr, flush=True)

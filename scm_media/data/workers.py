"""Worker processes that read batches, while the training that they read for is being ended."""

from __future__ import annotations

import signal
from types import FrameType


def outlive_first_signal(worker: int) -> None:
    """Lets a worker go on after the first signal that stops a training: schedulers send it to every process.

    The training that it reads for needs its batches to finish the step under way, and ends its workers itself.
    """
    for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), _ignore_first)


def _ignore_first(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_DFL)

"""Signals that stop a training: the current step is finished and saved before the process ends."""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import torch

REQUEUING = tuple(getattr(signal, name) for name in ("SIGUSR1", "SIGUSR2") if hasattr(signal, name))
"""Signals that Slurm sends before a job's time is over or another takes its place (``--signal``; submitit: SIGUSR2)."""
SIGNALS = (signal.SIGINT, signal.SIGTERM, *REQUEUING)


class Interruption:
    """Catches the first of ``SIGNALS`` while its block runs; a second one has the effect it had before the block.

    ``number`` is the signal that arrived, None before. Nothing is caught outside the main thread, where Python has no
    signal handlers. A signal that arrives after the last call of ``agree`` is raised again when the block ends.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._handled = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            # Ignored signals stay ignored: shells start background processes without SIGINT.
            heard = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
            self._before = {number: signal.signal(number, self._catch) for number in heard}
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._restore()
        if self.number is not None and not self._handled and kind is None:
            signal.raise_signal(self.number)

    def _catch(self, number: int, frame: FrameType | None) -> None:
        self.number = number
        self._restore()  # a user who cannot wait sends it again

    def _restore(self) -> None:
        for number, handler in self._before.items():
            # None: a handler that was not set from Python, which Python cannot set again.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._before = {}

    def agree(self, fabric: Any) -> bool:
        """Returns whether a signal reached any of the devices; all of them must call this, and get the same answer."""
        if fabric.world_size > 1:
            own = torch.tensor(self.number or 0, device=fabric.device)
            self.number = int(fabric.all_reduce(own, reduce_op="max")) or None
        self._handled = self.number is not None
        return self._handled

    def leave(self, fabric: Any, stage: str, checkpoint: Path) -> NoReturn:
        """Prints what was saved and how to go on, and raises SystemExit with the shell's code, 128 + the signal.

        Devices other than the first end with 0, since Lightning kills the first one when another one fails. On the
        first, a handler that was set for SIGUSR1 or SIGUSR2 before gets the signal then: submitit's requeues the job.
        """
        assert self.number is not None
        if fabric.global_rank != 0:
            raise SystemExit(0)
        print(
            f"{stage}: stopped by {signal.Signals(self.number).name}, saved as {checkpoint}; the same command goes on "
            "from there",
            file=sys.stderr,
            flush=True,
        )
        self._restore()
        if self.number in REQUEUING and callable(signal.getsignal(self.number)):
            signal.raise_signal(self.number)
        raise SystemExit(128 + self.number)

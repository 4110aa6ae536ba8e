"""SIGINT and SIGTERM during a training: the step is finished and saved before the process ends."""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import torch

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """Catches the first SIGINT or SIGTERM while its block runs; a second one does what it did before the block.

    ``number`` is the signal that came, None before. In a thread other than the main one, where Python has no signal
    handlers, nothing is caught. A signal that came too late for ``agreed`` to tell it is raised again when the block
    ends.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._told = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            # What is ignored stays so: shells start background processes without SIGINT.
            heard = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
            self._before = {number: signal.signal(number, self._catch) for number in heard}
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._restore()
        if self.number is not None and not self._told and kind is None:
            signal.raise_signal(self.number)

    def _catch(self, number: int, frame: FrameType | None) -> None:
        self.number = number
        self._restore()  # whoever cannot wait sends it again

    def _restore(self) -> None:
        for number, handler in self._before.items():
            # None: a handler that was not set from Python, which Python cannot set again.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._before = {}

    def agreed(self, fabric: Any) -> bool:
        """Returns whether a signal came to any of the devices; all of them must ask, and get the same answer."""
        if fabric.world_size > 1:
            own = torch.tensor(self.number or 0, device=fabric.device)
            self.number = int(fabric.all_reduce(own, reduce_op="max")) or None
        self._told = self.number is not None
        return self._told

    def leave(self, fabric: Any, stage: str, checkpoint: Path) -> NoReturn:
        """Says what was saved and how to go on, and raises SystemExit with the shell's code, 128 + the signal.

        Devices other than the first end with 0, since Lightning kills the first one when another one fails.
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
        raise SystemExit(128 + self.number)

"""How long steps wait for their batches."""

from __future__ import annotations

import time
from collections.abc import Iterator

from scm_media.data import Batch


class DataWaitMeter(Iterator[Batch]):
    """Batches of a stream, with the seconds that were spent on getting them and on the steps that they are for."""

    def __init__(self, stream: Iterator[Batch]) -> None:
        self._stream = stream
        self._waited = self._stepped = 0.0

    def __next__(self) -> Batch:
        begun = time.perf_counter()
        batch = next(self._stream)
        self._waited += time.perf_counter() - begun
        return batch

    def stepped(self, seconds: float) -> None:
        """Counts a step, waiting included."""
        self._stepped += seconds

    def take_fraction(self) -> float:
        """Of the steps since it was last asked for, the share spent waiting, in [0, 1]; 0 where there were none."""
        fraction = self._waited / self._stepped if self._stepped else 0.0
        self._waited = self._stepped = 0.0
        return fraction

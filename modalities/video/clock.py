"""Converts time stamps of a stream to seconds: rounded stamps, rates, and frames without a stamp."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

NEAR = 0.25
"""The largest move of a time stamp, in durations of a frame."""
STEPS = 1.01
"""A stamp this near to a whole number of frames counts as rounded, in steps of the stamps: half a step is its own
rounding, half the first frame's."""
LENGTH_STEPS = 2.01
"""The same for the length of a stream, which includes the rounded duration of its last frame."""
RATE_ERROR = 5e-4
"""A rate this near to a standard one, relatively, counts as it: half the distance from 30 to 29.97."""
SHORTEST, USUAL = 1, 10
"""Hundredths of a second: browsers show the frames of a GIF that ask for no more than the first for the second."""


@dataclass(frozen=True)
class Clock:
    """Converts stamps, which are whole multiples of ``step`` seconds, to seconds from the first frame on.

    begin: the first frame's time by the stream itself, in seconds. rate: frames a second.
    """

    begin: float
    step: float
    rate: float

    def seconds(self, stamp: float) -> float:
        """Returns when a frame is shown that the stream shows at ``stamp`` seconds.

        Containers round: Matroska and WebM to milliseconds, GIF to hundredths of a second. A time that lies within the
        rounding of a whole number of frames is that number of frames, so that the same footage has the same times in
        every container. Other times (of a variable rate) stay as they are.
        """
        return self._settle(stamp - self.begin, STEPS)

    def length(self, seconds: float) -> float:
        """Returns a length from the first frame on, brought to a whole number of frames as times are."""
        return self._settle(seconds, LENGTH_STEPS)

    def _settle(self, seconds: float, steps: float) -> float:
        nearest = round(seconds * self.rate) / self.rate
        return nearest if abs(nearest - seconds) <= min(steps * self.step, NEAR / self.rate) else seconds


def standard_rate(rate: float, length: float, step: float) -> float:
    """Returns the whole rate, or the whole rate / 1.001, that a stream of this length may have, else ``rate``.

    Headers round rates, and lengths over which they are averaged: 59.94 is 19001/317 in Matroska.
    """
    found = min((float(round(rate)), round(rate * 1.001) * 1000 / 1001), key=lambda standard: abs(standard - rate))
    return found if abs(found / rate - 1) <= min(RATE_ERROR, 1.5 * step / length) else rate


class StampsInOrder:
    """Gives times to frames whose own stamps are wrong or missing: the nth frame has the time of the nth packet.

    AVI has no times of showing, and FFmpeg's guesses for H.264 with B-frames are in the order of the file, while frames
    come from the decoder in the order in which they are shown. GIF tells how long each frame lasts.
    """

    def __init__(self, step: float, delays: bool) -> None:
        """delays: the durations of packets count, as in GIF from the first on; else their decoding times."""
        self._step, self._delays = step, delays
        self._waiting: deque[tuple[float, float]] = deque()
        self._end = 0

    def add(self, packet: Any) -> None:
        """Takes the time of a packet that is decoded next."""
        if not packet.size:
            return
        duration = packet.duration or 0
        if self._delays:
            duration = duration if duration > SHORTEST else USUAL
            begin, self._end = self._end, self._end + duration
        else:
            begin = self._end if packet.dts is None else packet.dts
            self._end = begin + max(1, duration)
        self._waiting.append((begin * self._step, duration * self._step))

    def next(self) -> tuple[float | None, float]:
        """Returns when the next frame is shown, in seconds of the stream (None: unknown), and for how long."""
        return self._waiting.popleft() if self._waiting else (None, 0.0)

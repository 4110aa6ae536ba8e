"""Which frames a clip is made of: those shown at its times, whatever the file's own rate is."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from modalities.video.footage import SLACK, Footage, Picture, VideoError
from scm_media.modality import Segment

TIE = 1e-9
"""The error of sums of times: what lies within it of a tie, half a frame late, is that tie."""


@dataclass(frozen=True)
class Span:
    """The seconds of footage that are used, and how many frames of ``rate`` a second they hold."""

    start: float
    stop: float
    rate: float
    tolerance: float
    """Seconds that a frame may come later than its time: half a frame."""

    @property
    def num_frames(self) -> int:
        """Returns the number of times 0, 1/rate, 2/rate … before the end: at least one."""
        return max(1, math.ceil((self.stop - self.start - self.tolerance) * self.rate - TIE))

    def times(self, first: float, num: int) -> list[float]:
        """When ``num`` frames from ``first`` seconds on are shown."""
        return [self.start + first + number / self.rate for number in range(num)]


def span_of(footage: Footage, rate: float | None) -> Span:
    """What is used of footage at a rate (None: its own): all of it, or the part that the file was given as.

    Raises VideoError for a part that the file does not have.
    """
    used = footage.rate if rate is None else rate
    tolerance = 0.5 / max(footage.rate, used)
    part = footage.file
    if not isinstance(part, Segment):
        return Span(0.0, footage.duration, used, tolerance)
    stop = footage.duration if part.stop is None else part.stop
    if part.start >= footage.duration or stop > footage.duration + SLACK + 1 / footage.rate:
        raise VideoError(
            part, "part beyond the file's end", f"is no part of the file, which ends after {footage.duration:.2f} s"
        )
    return Span(part.start, min(stop, footage.duration), used, tolerance)


def shown_at(footage: Footage, times: Sequence[float], tolerance: float) -> Iterator[tuple[int, Picture]]:
    """For each frame that is shown at one of the times, at how many of them it is, and the frame; times ascend.

    Raises VideoError where the file ends before the last of them, and as ``Footage.frames``.
    """
    waiting = list(times)
    shown: Picture | None = None
    end = 0.0
    for begin, stop, picture in footage.frames(times[0] + tolerance):
        if shown is not None and (num := _num_before(waiting, begin - tolerance)):
            yield num, shown
            del waiting[:num]
        shown, end = picture, stop
        if not waiting:
            return
    if shown is None or waiting[-1] > end + SLACK + 1 / footage.rate:
        raise VideoError(
            footage.file,
            "cut short",
            f"is cut short: its header promises {footage.duration:.2f} s, its frames end at {end:.2f} s; fetch it "
            "again",
        )
    yield len(waiting), shown


def _num_before(times: Sequence[float], bound: float) -> int:
    """How many of ascending times come before a bound."""
    return next((place for place, time in enumerate(times) if time >= bound - TIE), len(times))

"""Selects the frames of a clip: those shown at its times, at any rate of the file."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from modalities.video.footage import SLACK, Footage, Picture, VideoError, check_end
from scm_media.modality import Segment

TIE = 1e-9
"""The error of sums of times: a time this near to a tie, half a frame late, is that tie."""


@dataclass(frozen=True)
class Span:
    """The seconds of footage that are used, and the rate of their frames."""

    start: float
    stop: float
    rate: float
    tolerance: float
    """Seconds by which a frame may be later than its time: half a frame."""

    @property
    def num_frames(self) -> int:
        """Returns the number of times 0, 1/rate, 2/rate … before the end: at least one."""
        return max(1, math.ceil((self.stop - self.start - self.tolerance) * self.rate - TIE))

    def times(self, first: float, num: int) -> list[float]:
        """Returns the times of ``num`` frames from ``first`` seconds on."""
        return [self.start + first + number / self.rate for number in range(num)]


def find_span(footage: Footage, rate: float | None) -> Span:
    """Returns the span of footage at a rate (None: its own): all of it, or the segment that the file is.

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


def select_frames(footage: Footage, times: Sequence[float], tolerance: float) -> Iterator[tuple[int, Picture]]:
    """Yields each frame that is shown at one of the ascending times, after the number of times that it is shown at.

    Raises VideoError if the file ends before the last of them, and as ``Footage.frames``.
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
    check_end(footage, end, math.inf if shown is None else waiting[-1])
    assert shown is not None
    yield len(waiting), shown


def _num_before(times: Sequence[float], bound: float) -> int:
    """Returns how many of ascending times come before a bound."""
    return next((index for index, time in enumerate(times) if time >= bound - TIE), len(times))

"""Selects the frames that a file of any rate shows at the times of a clip."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from modalities.video.footage import SLACK, Footage, Picture, VideoError, check_end
from scm_media.modality import Segment

ROUNDING_ERROR = 1e-9
"""Computed times may be off by this much, so that those that differ by less count as equal."""


@dataclass(frozen=True)
class Span:
    """The seconds of footage that are used, and the rate of their frames."""

    start: float
    stop: float
    rate: float
    tolerance: float
    """Seconds by which a frame may be later than its time: half a frame, of the file or of the clip."""

    @property
    def num_frames(self) -> int:
        """The number of times 0, 1/rate, 2/rate … before the end, at least 1."""
        return max(1, math.ceil((self.stop - self.start - self.tolerance) * self.rate - ROUNDING_ERROR))

    def times(self, first: float, num: int) -> list[float]:
        """Returns the times of ``num`` frames from ``first`` seconds on."""
        return [self.start + first + number / self.rate for number in range(num)]


def find_span(footage: Footage, rate: float | None) -> Span:
    """Returns the whole span of footage, or that of its segment, at a rate (None: the footage's own).

    Raises VideoError for a segment beyond the end of the file.
    """
    rate = footage.rate if rate is None else rate
    tolerance = 0.5 / max(footage.rate, rate)
    segment = footage.file
    if not isinstance(segment, Segment):
        return Span(0.0, footage.duration, rate, tolerance)
    stop = footage.duration if segment.stop is None else segment.stop
    if segment.start >= footage.duration or stop > footage.duration + SLACK + 1 / footage.rate:
        raise VideoError(
            segment, "part beyond the file's end", f"is not within the file, which ends after {footage.duration:.2f} s"
        )
    return Span(segment.start, min(stop, footage.duration), rate, tolerance)


def select_frames(footage: Footage, times: Sequence[float], tolerance: float) -> Iterator[tuple[int, Picture]]:
    """Yields (count, frame) for each frame that is shown at ``count`` > 0 of the ascending times.

    Raises VideoError if the file ends before the last time, and as ``Footage.frames``.
    """
    remaining = list(times)
    shown: Picture | None = None
    end = 0.0
    for begin, stop, picture in footage.frames(times[0] + tolerance):
        if shown is not None and (num := _num_before(remaining, begin - tolerance)):
            yield num, shown
            del remaining[:num]
        shown, end = picture, stop
        if not remaining:
            return
    check_end(footage, end, math.inf if shown is None else remaining[-1])  # raises if there was no frame
    assert shown is not None
    yield len(remaining), shown


def _num_before(times: Sequence[float], bound: float) -> int:
    """Returns how many of the ascending times come before a bound."""
    return next((index for index, time in enumerate(times) if time >= bound - ROUNDING_ERROR), len(times))

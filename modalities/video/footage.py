"""The interface of every kind of footage, and the errors that name its file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Protocol

import numpy as np

from scm_media.modality import Segment

File = str | Path | Segment | IO[bytes]
"""A video on a disk, a part of one, a folder of frames, or an opened file with a name."""

MAX_PIXELS = 1 << 26
"""The most pixels of a frame; the header of a larger one raises VideoError."""
LONGEST_SIDE = (1 << 16) - 1
"""The longest side of a frame, in pixels: a strip of millions by one would cost gigabytes."""
SLACK = 0.1
"""Seconds, beside one frame, by which a file may end before the duration in its header."""


class VideoError(ValueError):
    """Describes a fault of a video in one line; a dataset counts its rejects by ``reason``."""

    def __init__(self, file: File, reason: str, detail: str) -> None:
        super().__init__(f"{name_of(file)} {detail}")
        self.reason = reason


class Picture(Protocol):
    """A decoded frame whose pixels are still to be resampled."""

    def pixels(self, height: int, width: int, channels: int, background: float) -> np.ndarray:
        """Returns ``(height, width, channels)`` uint8, upright, resampled; transparent pixels show the background."""
        ...


class Footage(Protocol):
    """An opened video: upright frames of ``height`` × ``width`` that are shown from 0 to ``duration`` seconds.

    rate: average frames a second. num_frames: None if only decoding can count them. oddities: keys of
    ``survey.ODDITIES`` that apply to the file.
    """

    file: File
    height: int
    width: int
    rate: float
    duration: float
    num_frames: int | None
    oddities: tuple[str, ...]

    def frames(self, start: float) -> Iterator[tuple[float, float, Picture]]:
        """Yields (begin, end, frame) in order, in seconds, from the frame that is shown at ``start`` on.

        Raises VideoError for a frame that cannot be decoded.
        """
        ...

    def close(self) -> None:
        """Closes the file."""
        ...


def name_of(file: File) -> str:
    """Returns the name of the file in error messages."""
    return str(file) if isinstance(file, str | Path | Segment) else getattr(file, "name", "the video")


def path_of(file: File) -> Path | None:
    """Returns the path on the disk, None for content in memory."""
    if isinstance(file, Segment):
        return file.path
    return Path(file) if isinstance(file, str | Path) else None


def words_of(error: Exception) -> str:
    """Returns what a decoder's error says, in one line; the name of its type if it says nothing."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(re.sub(r"<[\w.]+ object at 0x\w+>", "the file", text).split())


@contextmanager
def wrap_errors(file: File, what: str = "cannot be decoded") -> Iterator[None]:
    """Turns whatever a decoder raises within it, of any type, into a VideoError that names the file."""
    try:
        yield
    except VideoError:
        raise
    except Exception as error:
        raise VideoError(file, "undecodable", f"{what}: {words_of(error)}") from error


def check_size(file: File, height: int, width: int) -> None:
    """Raises VideoError for frames without pixels, with too many, or with a side that is too long."""
    if max(height, width) > LONGEST_SIDE:
        raise VideoError(file, "frame size", f"has frames of {width}×{height}, a side may have {LONGEST_SIDE} pixels")
    if not 0 < height * width <= MAX_PIXELS:
        raise VideoError(file, "frame size", f"has frames of {width}×{height}, at most {MAX_PIXELS} pixels are read")


def check_end(footage: Footage, end: float, wanted: float) -> None:
    """Raises VideoError if ``end``, when the last frame ends, is before ``wanted``, both in seconds."""
    if wanted > end + SLACK + 1 / footage.rate:
        promised = f"its header promises {footage.duration:.2f} s, its frames end at {end:.2f} s"
        raise VideoError(footage.file, "cut short", f"is cut short: {promised}; fetch it again")

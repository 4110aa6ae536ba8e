"""Videos that are not decoded yet: what every kind of footage has, and the errors that name a file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Protocol

import numpy as np

from scm_media.modality import Segment

File = str | Path | Segment | IO[bytes]
"""A video on a disk, a part of one, a folder of frames, or the content of a file, whose name tells the suffix."""

MOST_PIXELS = 1 << 26
"""A frame of more is refused by its header."""
LONGEST_SIDE = (1 << 16) - 1
"""Pixels of a frame's side at most: a strip of millions by one is no frame, and costs gigabytes."""
SLACK = 0.1
"""Seconds by which the last frame may end before the container says so (and a frame of the file more)."""


class VideoError(ValueError):
    """What is wrong with a video, in one line; ``reason`` is what it is counted by among the rejects of a dataset."""

    def __init__(self, file: File, reason: str, detail: str) -> None:
        super().__init__(f"{name_of(file)} {detail}")
        self.reason = reason


class Picture(Protocol):
    """A frame that is not brought to pixels yet."""

    def pixels(self, height: int, width: int, channels: int, background: float) -> np.ndarray:
        """``(height, width, channels)`` uint8, upright, resampled; what is transparent shows the background."""
        ...


class Footage(Protocol):
    """An opened video: upright frames of ``height`` × ``width`` that are shown from 0 to ``duration`` seconds.

    rate: frames a second, on average. num_frames: None where only decoding tells. oddities: what somebody who looks at
    data should be told of the file, by the keys of ``survey.ODDITIES``.
    """

    file: File
    height: int
    width: int
    rate: float
    duration: float
    num_frames: int | None
    oddities: tuple[str, ...]

    def frames(self, start: float) -> Iterator[tuple[float, float, Picture]]:
        """When each frame is shown (from, to, in seconds) and the frame, in order, from that shown at ``start`` on.

        Raises VideoError where one cannot be decoded.
        """
        ...

    def close(self) -> None:
        """Lets go of the file."""
        ...


def name_of(file: File) -> str:
    """Returns the name by which error messages call the file."""
    return str(file) if isinstance(file, str | Path | Segment) else getattr(file, "name", "the video")


def path_of(file: File) -> Path | None:
    """Returns the path on the disk, None for content in memory."""
    if isinstance(file, Segment):
        return file.path
    return Path(file) if isinstance(file, str | Path) else None


def words_of(error: Exception) -> str:
    """Returns what a decoder's error says, in one line; the name of its type where it says nothing."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(re.sub(r"<[\w.]+ object at 0x\w+>", "the file", text).split())


@contextmanager
def decoding(file: File, what: str = "cannot be decoded") -> Iterator[None]:
    """Turns whatever a decoder raises within it, of any type, into a VideoError that names the file and a reason."""
    try:
        yield
    except VideoError:
        raise
    except Exception as error:
        raise VideoError(file, "undecodable", f"{what}: {words_of(error)}") from error


def check_size(file: File, height: int, width: int) -> None:
    """Raises VideoError for frames of no pixels, of more than are read, or of a side that no picture has."""
    if max(height, width) > LONGEST_SIDE:
        raise VideoError(file, "frame size", f"has frames of {width}×{height}, a side may have {LONGEST_SIDE} pixels")
    if not 0 < height * width <= MOST_PIXELS:
        raise VideoError(file, "frame size", f"has frames of {width}×{height}, at most {MOST_PIXELS} pixels are read")

"""Videos of every kind: opened without being decoded, and their frames from any second on.

Containers (MP4, WebM, MKV, AVI, GIF) are FFmpeg's, through PyAV (``containers.py``); folders of frames, animated WebP
and single pictures are Pillow's (``pictures.py``).
"""

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

CONTAINERS = frozenset({".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi", ".gif"})
PICTURES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"})
"""Of single frames, in a folder or as the input of an edit."""
WEBP = ".webp"
SUFFIXES = CONTAINERS | {WEBP}

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


@contextmanager
def opened(file: File, folder_rate: float, strict: bool = False) -> Iterator[Footage]:
    """The footage of a file (all of it, where a part is given), or of a folder of frames at ``folder_rate``.

    strict: whether damage that decoders could conceal is an error too, in what is decoded of it. Raises VideoError for
    what is missing, empty, no video, or has frames that are larger than may be.
    """
    path = path_of(file)
    _check_there(file, path)
    with decoding(file):
        footage = _open(file, path, folder_rate, strict)
    try:
        check_size(file, footage.height, footage.width)
        yield footage
    finally:
        footage.close()


def _check_there(file: File, path: Path | None) -> None:
    if path is not None and not path.exists():
        raise VideoError(file, "missing file", "is no file: check its name")
    if path is not None and path.is_dir():
        return
    if path is not None and not path.is_file():
        raise VideoError(file, "missing file", "is neither a file nor a folder")
    size = path.stat().st_size if path is not None else file.seek(0, 2)  # type: ignore[union-attr]
    if size == 0:
        raise VideoError(file, "empty", "is empty (0 bytes): fetch or record it again")


def _open(file: File, path: Path | None, folder_rate: float, strict: bool) -> Footage:
    from modalities.video.containers import ContainerFootage
    from modalities.video.pictures import FolderFootage, WebPFootage

    suffix = Path(name_of(file) if path is None else path).suffix.lower()
    if path is not None and path.is_dir():
        return FolderFootage(file, frames_in(path), folder_rate)
    if suffix in PICTURES and path is not None:
        return FolderFootage(file, [path], folder_rate)
    return WebPFootage(file) if suffix == WEBP else ContainerFootage(file, strict)


def frames_in(folder: Path) -> list[Path]:
    """Returns the pictures of a folder, in the order of the numbers in their names."""
    found = [path for path in folder.iterdir() if path.suffix.lower() in PICTURES and not path.name.startswith(".")]
    return sorted(found, key=_natural)


def holds_frames(folder: Path) -> bool:
    """Returns whether a folder is one video: it has pictures, and neither videos nor folders beside them.

    A folder that cannot be listed is none; whoever walks through folders meets the error again, and counts it.
    """
    found = False
    try:
        paths = list(folder.iterdir())
    except OSError:
        return False
    for path in paths:
        suffix = path.suffix.lower()
        if suffix in SUFFIXES or (path.is_dir() and not path.name.startswith(".")):
            return False
        found = found or (suffix in PICTURES and not path.name.startswith("."))
    return found


def _natural(path: Path) -> tuple[list[tuple[int, int, str]], str]:
    """Names by the numbers in them: frame 2 before frame 10."""
    words: list[tuple[int, int, str]] = []
    number = ""
    for letter in f"{path.stem}\0":
        if letter.isascii() and letter.isdigit():
            number += letter
            continue
        if number:
            words.append((0, int(number), ""))
            number = ""
        words.append((1, 0, letter))
    return words, path.name

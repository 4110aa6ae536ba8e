"""Opens videos of every kind, without decoding them.

Containers (MP4, WebM, MKV, AVI, GIF) are read by FFmpeg, through PyAV (``containers.py``); folders of frames, animated
WebP and single pictures by Pillow (``stills.py``).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from modalities.video.containers import ContainerFootage
from modalities.video.footage import File, Footage, VideoError, check_size, name_of, path_of, wrap_errors
from modalities.video.stills import FolderFootage, WebPFootage

CONTAINERS = frozenset({".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi", ".gif"})
PICTURES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"})
"""Suffixes of single frames, in a folder or as the input of an edit."""
WEBP = ".webp"
SUFFIXES = CONTAINERS | {WEBP}


@contextmanager
def open_footage(file: File, folder_rate: float, strict: bool = False) -> Iterator[Footage]:
    """Yields the footage of a file (of a segment: the whole file's), or of a folder of frames at ``folder_rate``.

    strict: damage that decoders could conceal is an error too. Raises VideoError for a file that is missing, empty or
    no video, and for too large frames.
    """
    path = path_of(file)
    _check_there(file, path)
    with wrap_errors(file):
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
    suffix = Path(name_of(file) if path is None else path).suffix.lower()
    if path is not None and path.is_dir():
        return FolderFootage(file, list_frames(path), folder_rate, strict)
    if suffix in PICTURES and path is not None:
        return FolderFootage(file, [path], folder_rate, strict)
    return WebPFootage(file) if suffix == WEBP else ContainerFootage(file, strict)


def list_frames(folder: Path) -> list[Path]:
    """Returns the pictures of a folder, in the order of the numbers in their names."""
    found = [path for path in folder.iterdir() if path.suffix.lower() in PICTURES and not path.name.startswith(".")]
    return sorted(found, key=_natural)


def holds_frames(folder: Path) -> bool:
    """Returns whether a folder is one video: it has pictures, and neither videos nor folders beside them.

    A folder that cannot be listed is not; walking through folders meets the error again, and counts it.
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
    """Returns a key that sorts names by the numbers in them: frame 2 before frame 10."""
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

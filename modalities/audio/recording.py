"""The interface of an opened sound, whichever library decodes it, and the error for sounds that cannot be used."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Protocol

import numpy as np

File = str | Path | IO[bytes]
"""A file on a disk, or its opened content; the attribute ``name`` of the latter, if any, gives the suffix."""


class SoundError(ValueError):
    """Reports in one line a sound that cannot be used; a dataset counts its rejects by ``reason``."""

    def __init__(self, file: File, reason: str, detail: str) -> None:
        super().__init__(f"{name_of(file)} {detail}")
        self.reason = reason


def format_change(file: File, before: tuple[int, int], after: tuple[int, int]) -> SoundError:
    """Returns the error for a file whose rate in Hz and number of channels change inside."""
    (rate, channels), (new_rate, new_channels) = before, after
    return SoundError(
        file,
        "changes inside",
        f"changes from {rate} Hz with {channels} channels to {new_rate} Hz with {new_channels}, expected one rate and "
        "number of channels: take it apart, or convert it",
    )


class Recording(Protocol):
    """Reads an opened file of ``frames`` samples a channel at ``rate`` Hz."""

    file: File
    rate: int
    channels: int
    frames: int

    def read(self, start: int, stop: int) -> np.ndarray:
        """Returns frames ``start`` to ``stop``, ``(n, channels)`` float32; fewer if the file is cut short."""
        ...

    def close(self) -> None:
        """Closes the file."""
        ...


def name_of(file: File) -> str:
    """Returns the name by which error messages call the file."""
    return str(file) if isinstance(file, str | Path) else getattr(file, "name", "the sound")


def suffix_of(file: File) -> str:
    """Returns the suffix of the file's name in lower case, with its dot; empty where it has none."""
    return Path(name_of(file)).suffix.lower()


def version_of(file: File) -> tuple[str, int, int] | None:
    """Returns path, size and time of change of a file on a disk; None for one in memory."""
    if not isinstance(file, str | Path):
        return None
    status = os.stat(file)
    return str(file), status.st_size, status.st_mtime_ns


@contextmanager
def content_of(file: File) -> Iterator[IO[bytes]]:
    """Yields the opened content of a file at its start; the position of one in memory is restored.

    Raises SoundError for a file that may not be read.
    """
    if isinstance(file, str | Path):
        try:
            content = open(file, "rb")  # noqa: SIM115
        except OSError as error:
            raise SoundError(file, "unreadable", f"cannot be read ({error.strerror}): check its permissions") from error
        with content:
            yield content
        return
    position = file.tell()
    file.seek(0)
    try:
        yield file
    finally:
        file.seek(position)


@contextmanager
def decoder_errors(file: File) -> Iterator[None]:
    """Turns whatever a decoder raises inside the block into a SoundError that names the file.

    Decoders raise exceptions of many types on damaged files (AttributeError and MemoryError among them). Each is a
    fault of the file: it is counted among the rejects, and the run goes on.
    """
    try:
        yield
    except SoundError:
        raise
    except Exception as error:
        message = getattr(error, "strerror", None) or f"{type(error).__name__} {error}"
        detail = " ".join(message.split())
        raise SoundError(
            file, "undecodable", f"cannot be decoded ({detail}): convert it to WAV or FLAC, or remove it"
        ) from error

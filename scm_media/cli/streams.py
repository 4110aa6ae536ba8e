"""Keeps standard streams from ending a command: closed ones, narrow encodings, readers that are gone."""

from __future__ import annotations

import io
import os
import sys
from typing import IO, Any, TextIO


def secure_streams() -> None:
    """Makes the process's standard streams safe to write to; called once, before anything is printed or opened.

    A stream that is closed (``>&-``) leads nowhere instead of to the next file that is opened. Characters that an
    encoding does not have are written as escapes. A failure to write standard error is ignored.
    """
    for number in range(3):
        _open_if_closed(number)
    sys.stdin = sys.stdin or open(os.devnull, encoding="utf-8")  # noqa: SIM115 (for the whole process)
    if sys.stdout is None:
        sys.stdout = _writer(io.FileIO(1, "w", closefd=False), "utf-8")
    elif isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
    sys.stderr = _writer(_BestEffort(2, "w", closefd=False), encoding)


def flush_or_discard(stream: TextIO | None) -> OSError | None:
    """Flushes a stream and returns None; after an error, drops what it still holds and returns the error."""
    if stream is None:
        return None
    try:
        stream.flush()
    except OSError as error:
        discard(stream)
        return error
    return None


def discard(stream: IO[Any]) -> None:
    """Leads a stream nowhere, so that the interpreter's last flush of it succeeds."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


class _BestEffort(io.FileIO):
    """Ignores writes that fail, so that a terminal that is gone stops no training."""

    def write(self, data: Any) -> int:
        """Returns the number of bytes given, whether they could be written or not."""
        try:
            return super().write(data) or 0
        except OSError:
            return len(memoryview(data).cast("B"))


def _writer(raw: io.FileIO, encoding: str) -> io.TextIOWrapper:
    buffered = io.BufferedWriter(raw)
    return io.TextIOWrapper(buffered, encoding=encoding, errors="backslashreplace", line_buffering=True)


def _open_if_closed(number: int) -> None:
    try:
        os.fstat(number)
    except OSError:
        nowhere = os.open(os.devnull, os.O_RDWR)
        if nowhere != number:  # lower numbers are open already, so the system gives this one
            os.dup2(nowhere, number)
            os.close(nowhere)
        os.set_inheritable(number, True)

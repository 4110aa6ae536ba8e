"""One run at a time in a run folder, by a lock that ends with its process."""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOCK = ".lock"
_TAKEN = (errno.EAGAIN, errno.EACCES, errno.EDEADLK)
_held: set[int] = set()


@contextmanager
def claim(run_dir: Path) -> Iterator[None]:
    """Holds ``run_dir/.lock`` for as long as its block runs; the folder is made where there is none.

    The operating system releases the lock when its process ends, however it ends. Where the file system has no locks
    (some network ones), that is said and the block runs without. Raises ValueError, with process and host of the
    holder where the file tells them, when another run holds the lock.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    file = os.open(run_dir / LOCK, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o666)
    _held.add(file)
    try:
        try:
            _lock(file)
        except OSError as error:
            if error.errno in _TAKEN:
                holder = os.read(file, 200).decode(errors="replace").strip() or "another process"
                raise ValueError(
                    f"{run_dir} is in use by {holder}: wait for that run to end, stop it, or use another run_dir"
                ) from error
            print(
                f"{run_dir}: its file system cannot lock ({error.strerror or error}); let no other run use this folder",
                file=sys.stderr,
            )
        os.truncate(file, 0)
        os.write(file, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        yield
    finally:
        _held.discard(file)
        os.close(file)


if sys.platform == "win32":
    import msvcrt

    def _lock(file: int) -> None:
        os.lseek(file, 1 << 30, os.SEEK_SET)  # beyond the text: Windows lets nobody read what is locked
        try:
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        finally:
            os.lseek(file, 0, os.SEEK_SET)

else:
    import fcntl

    def _lock(file: int) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _release_in_child() -> None:
        # A worker that is forked shares the lock, and would hold it for a while after its parent was killed.
        for file in _held:
            os.close(file)

    os.register_at_fork(after_in_child=_release_in_child)

"""A training that kills itself while it writes a checkpoint, for tests in processes of their own."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Sequence
from pathlib import Path

from scm_media.training import checkpoints
from tests.training.small import train


def train_until_killed(run_dir: Path, overrides: Sequence[str], write: int | None, part: float) -> None:
    """Trains image/tiny made smaller, with its output in ``log``, and kills itself where ``write`` says so.

    write: the number of the file of checkpoints, counted from 1, that it is killed in; None for never. part: how much
    of this file is written before. A part of 1 kills it between that file and the next call: of the second file before
    the checkpoint gets its name.
    """
    log = os.open(run_dir / "log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    if write is not None:
        _kill_while_writing(write, part)
    train(run_dir, *overrides)


def _kill_while_writing(write: int, part: float) -> None:
    whole, calls = checkpoints._write, itertools.count(1)

    def killed(path, content):
        if next(calls) < write:
            return whole(path, content)
        whole(path, content[: int(part * len(content))])
        os.kill(os.getpid(), signal.SIGKILL)

    checkpoints._write = killed

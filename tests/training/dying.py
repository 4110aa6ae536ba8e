"""Trains on two ranks, of which one dies: ``python -m tests.training.dying FOLDER RANK WHERE``.

WHERE: ``step``, the rank kills itself in a step; ``writing``, while rank 0 writes a checkpoint, for which rank 1 waits;
``hanging``, while the other one hangs in a call that nothing ends; ``error``, it raises an error in a step; ``nan``,
its loss is not a number in two steps; ``slow``, rank 0 writes for longer than collectives used to wait. Each rank
leaves its weights in FOLDER.
"""

from __future__ import annotations

import math
import os
import signal
import sys
import time
from datetime import timedelta
from pathlib import Path

import torch

from scm_media.fabric import Fabric
from scm_media.training import checkpoints, watch
from tests.training.small import Slope, run_task

write = checkpoints._write


class Dying(Slope):
    """Slope that dies in its third step, or hangs there."""

    def __init__(self, where: str, dies: bool) -> None:
        super().__init__([2.0], {1: math.nan, 3: math.nan} if dies and where == "nan" else None)
        self.where, self.dies = where, dies

    def forward(self, x, step):
        if step == 2:
            if self.dies and self.where in ("step", "hanging"):
                time.sleep(0.5)  # the other one waits for this one, or hangs
                os.kill(os.getpid(), signal.SIGKILL)
            if self.dies and self.where == "error":
                raise ValueError("mine.png cannot be decoded")
            if self.where == "hanging":
                time.sleep(1000)
        return super().forward(x, step)


def main(folder: Path, dying: int, where: str) -> None:
    watch.SECONDS_TO_END = 4.0
    fabric = Fabric(accelerator="cpu", devices=2, strategy="ddp")
    fabric.launch()
    rank = fabric.global_rank
    pids = [None, None]
    torch.distributed.all_gather_object(pids, os.getpid())

    def eventful_write(path, content):
        if path.match("*step-4*/state.safetensors"):
            if where == "slow":
                time.sleep(4)
            else:
                time.sleep(0.5)  # rank 1 waits for this one meanwhile
                os.kill(pids[dying], signal.SIGKILL)
                time.sleep(1)
        write(path, content)

    if where in ("writing", "slow"):
        checkpoints._write = eventful_write
    if where == "slow":
        watch._set_timeout(timedelta(seconds=2))
    with watch.watch(fabric):
        after = run_task(folder, Dying(where, rank == dying), 6, fabric=fabric, checkpoint_every=2)
    torch.save(after, folder / f"rank-{rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])

"""Trains one step on as many devices as are asked for: ``python -m tests.training.averaging FOLDER NUM [fail]``.

Each rank leaves its weights in FOLDER. fail: the first rank cannot save its checkpoint.
"""

from __future__ import annotations

import errno
import sys
from pathlib import Path

import torch

from scm_media.fabric import Fabric
from scm_media.training import checkpoints
from tests.training.small import Slope, run_task


class Fit(Slope):
    """(w x - 3)² / 100 averaged: the gradient hangs on the clips, and on no noise."""

    def forward(self, x, step):
        each = (self.net(x).squeeze(1) - 3).square() / 100
        return each.mean(), {"loss": each.detach()}


def no_space(*_args, **_kwargs):
    raise OSError(errno.ENOSPC, "No space left on device")


def main(folder: Path, num: int, fail: bool) -> None:
    if fail:
        checkpoints.save = no_space
    fabric = Fabric(accelerator="cpu", devices=num, strategy="ddp" if num > 1 else "auto")
    fabric.launch()
    after = run_task(folder, Fit(), 1, fabric=fabric)
    torch.save(after, folder / f"rank-{fabric.global_rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:] == ["fail"])

"""Trains in two processes, of which one cannot write its part of a checkpoint: ``FOLDER KEY=VALUE …``."""

from __future__ import annotations

import os
import resource
import sys

from scm_media.training.sharded_checkpoints import ShardedCheckpoints
from tests.training.divided_runs import train


def main(folder: str, *words: str) -> None:
    """Trains with a disk that is full on rank 1 once step 4 is saved."""
    real = ShardedCheckpoints.save

    def save(self: ShardedCheckpoints, step: int, state: dict[str, object]) -> None:
        if step == 4 and os.environ["RANK"] == "1":
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
        real(self, step, state)

    ShardedCheckpoints.save = save
    train(folder, *words)


if __name__ == "__main__":
    main(*sys.argv[1:])

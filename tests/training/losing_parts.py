"""Trains in two processes, of which the second fails at the checkpoint of step 4: ``FOLDER HOW KEY=VALUE …``.

HOW: ``full``, it has no space for its part; ``killed``, it is killed when its part is written.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
from typing import Any

from scm_media.training.sharded_checkpoints import ShardedCheckpoints
from tests.training.divided_runs import train


def main(folder: str, how: str, *words: str) -> None:
    """Trains with a checkpoint that cannot be completed."""
    real_save, real_complete = ShardedCheckpoints.save, ShardedCheckpoints._complete

    def fails(step: int, kind: str) -> bool:
        return how == kind and step == 4 and os.environ["RANK"] == "1"

    def save(self: ShardedCheckpoints, step: int, state: dict[str, Any]) -> None:
        if fails(step, "full"):
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
        real_save(self, step, state)

    def complete(self: ShardedCheckpoints, step: int, skeleton: Any, written: Any) -> None:
        if fails(step, "killed"):
            written.result()
            os.kill(os.getpid(), signal.SIGKILL)
        real_complete(self, step, skeleton, written)

    ShardedCheckpoints.save, ShardedCheckpoints._complete = save, complete
    train(folder, *words)


if __name__ == "__main__":
    main(*sys.argv[1:])

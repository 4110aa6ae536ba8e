"""Trains image/tiny made smaller several times: ``torchrun -m tests.training.divided_runs FOLDER:KEY=VALUE;… …``.

Several runs share the price of starting processes.
"""

from __future__ import annotations

import sys

from scm_media import recipe, training
from tests.training.small import SMALL

PLAIN = (
    *SMALL,
    "backbone.dropout=0.0",
    "backbone.depth=2",
    "teacher.max_steps=4",
    "student.max_steps=4",
    "trainer.validate_every=4",
    "trainer.snapshot_every=2",
    "++student.loss.timesteps.stratified=true",
)


def train(folder: object, *words: str) -> None:
    """Trains into a folder, in this process, which may be one of several."""
    training.run(recipe.compose("image/tiny", [*PLAIN, f"run_dir={folder}", *words]))


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        into, _, given = argument.partition(":")
        train(into, *given.split(";"))

"""All that a checkpoint holds and a resumed training goes on with, in one place."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from scm_media.ema import PowerEMA
from scm_media.training import checkpoints
from scm_media.training.snapshots import Snapshots


@dataclass
class TrainingState:
    """What changes from step to step of a stage.

    name: the stage's. loss: the module that is trained. ema, snapshots: its averages; no snapshots where none are
    wanted. skipped, skipped_in_a_row: steps whose loss or gradient was not finite, in all and last.
    """

    name: str
    loss: nn.Module
    optimizer: Any
    ema: PowerEMA
    snapshots: Snapshots | None
    skipped: int = 0
    skipped_in_a_row: int = 0

    def __post_init__(self) -> None:
        self.peak_rate: float = self.optimizer.param_groups[0]["lr"]  # before a checkpoint brings its own

    def set_rate(self, factor: float) -> float:
        """Sets the optimiser's rate to a share of its peak, and gives it."""
        rate = self.peak_rate * factor
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        return rate

    def count(self, finite: bool, step: int, limit: int) -> None:
        """Counts a step that was skipped, or ends a row of them; ValueError when more than ``limit`` are in a row."""
        self.skipped += not finite
        self.skipped_in_a_row = 0 if finite else self.skipped_in_a_row + 1
        if self.skipped_in_a_row > limit:
            raise ValueError(
                f"{self.name}: loss or gradient was not finite for {self.skipped_in_a_row} steps in a row (to step "
                f"{step}): lower {self.name}.optimizer.lr ({self.peak_rate}) or set precision=32-true, in another "
                "run_dir"
            )

    def average(self, step: int) -> None:
        """Takes the weights after a step, counted from 1, into all averages."""
        self.ema.update(step)
        if self.snapshots is not None:
            self.snapshots.update(step)

    def state_dict(self) -> dict[str, Any]:
        """What is saved."""
        return {
            "loss": self.loss.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "ema": self.ema.state_dict(),
            "skipped": self.skipped,
            "skipped_in_a_row": self.skipped_in_a_row,
            "snapshots": None if self.snapshots is None else self.snapshots.state_dict(),
        }

    def restore(self, folder: Path) -> int:
        """Takes the last checkpoint of a folder back and gives its step, 0 where there is none.

        Snapshots are given up where the checkpoint has none of their averages. Raises ValueError for a checkpoint of
        another recipe, or of something else.
        """
        found = checkpoints.steps(folder)
        if not found:
            return 0
        saved = checkpoints.load(folder, found[-1])
        if lacking := [name for name in ("loss", "optimizer", "ema", "skipped") if name not in saved]:
            raise ValueError(
                f"{folder}/step-{found[-1]} is a checkpoint of something else: it has {', '.join(saved) or 'nothing'} "
                f"and lacks {', '.join(lacking)}; use another run_dir"
            )
        own, kept = self.loss.state_dict(), saved["loss"]
        problems = []
        if missing := sorted(own.keys() - kept.keys()):
            problems.append(f"missing {', '.join(missing[:6])}")
        if unexpected := sorted(kept.keys() - own.keys()):
            problems.append(f"unexpected {', '.join(unexpected[:6])}")
        problems += [
            f"{name} {tuple(kept[name].shape)}, expected {tuple(own[name].shape)}"
            for name in own
            if name in kept and kept[name].shape != own[name].shape
        ][:4]
        groups = saved["optimizer"].get("param_groups") or [{}]
        if self.optimizer.param_groups[0].keys() != groups[0].keys():
            problems.append("another optimizer")
        if problems:
            raise ValueError(
                f"{folder}/step-{found[-1]} belongs to another recipe ({'; '.join(problems)}): use another run_dir"
            )
        self.loss.load_state_dict(kept)
        self.optimizer.load_state_dict(saved["optimizer"])
        self.ema.load_state_dict(saved["ema"])
        self.skipped = saved["skipped"]
        self.skipped_in_a_row = saved.get("skipped_in_a_row", 0)  # absent from earlier checkpoints
        if self.snapshots is not None and saved.get("snapshots") is not None:
            self.snapshots.load_state_dict(saved["snapshots"])
        elif self.snapshots is not None:
            print(
                f"{self.name}: no snapshots of averages, its training began without (step {found[-1]})", file=sys.stderr
            )
            self.snapshots = None
        return found[-1]

"""What a training tells: one bar, ``metrics.jsonl``, TensorBoard, and each term by bands of t."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scm_media import weights

BANDS = (0.0, 0.2, 0.5, 0.8, 1.1, 1.4, math.pi / 2)
"""Edges of the bands of t, in radians, that diagnostics are averaged over."""


class TermAverages:
    """The mean of every term over the clips since the last report, in all and by bands of t."""

    def __init__(self) -> None:
        self._kept: list[dict[str, Tensor]] = []

    def add(self, terms: Mapping[str, Tensor]) -> None:
        """Takes the terms ``(B,)`` of a batch; one of them may be t."""
        self._kept.append({name: term.detach() for name, term in terms.items()})

    def take(self) -> dict[str, float]:
        """Name to mean, and ``name/t0.2-0.5`` to the mean in a band; starts afresh."""
        if not self._kept:
            return {}
        whole = {name: torch.cat([terms[name].float().cpu() for terms in self._kept]) for name in self._kept[0]}
        self._kept = []
        t = whole.pop("t", None)
        means = {name: term.mean().item() for name, term in whole.items()}
        if t is None:
            return means
        for low, high in pairwise(BANDS):
            inside = (t >= low) & (t < high)
            if inside.any():
                means |= {f"{name}/t{low:.1f}-{high:.1f}": term[inside].mean().item() for name, term in whole.items()}
        return means


class Reporter:
    """Writes one stage's figures to its folder and shows its progress on standard error."""

    def __init__(self, folder: Path, stage: str, max_steps: int, start_step: int, logger: Any = None) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self.stage, self.max_steps, self.logger = stage, max_steps, logger
        folder.mkdir(parents=True, exist_ok=True)
        self._drop_later_lines(folder / "metrics.jsonl", start_step)
        self._lines = open(folder / "metrics.jsonl", "a", buffering=1, encoding="utf-8")  # noqa: SIM115 (see close)
        self._started, self._start_step = time.monotonic(), start_step
        self._bar = None
        if sys.stderr.isatty():
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.completed}/{task.total} {task.fields[figures]}"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
            )
            self._task = self._bar.add_task(stage, total=max_steps, completed=start_step, figures="")
            self._bar.start()

    @staticmethod
    def _drop_later_lines(path: Path, start_step: int) -> None:
        """Forgets what an interrupted run had logged past the checkpoint it is resumed from, all when there is none."""
        if path.exists():
            kept = []
            for line in path.read_text(encoding="utf-8").splitlines():
                try:
                    if json.loads(line)["step"] <= start_step and start_step > 0:
                        kept.append(line + "\n")
                except (json.JSONDecodeError, KeyError):
                    continue  # the line that was being written when the run was killed
            weights.write_whole(path, "".join(kept).encode())

    def advance(self, step: int) -> None:
        """Moves the bar to a step."""
        if self._bar is not None:
            self._bar.update(self._task, completed=step)

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Keeps figures in ``metrics.jsonl`` and the logger."""
        try:
            self._lines.write(json.dumps({"step": step, **figures}) + "\n")
        except OSError as error:
            reason = f"{self._lines.name} was not written ({error.strerror}); the last good checkpoint is intact"
            raise OSError(error.errno, reason) from error
        if self.logger is not None:
            self.logger.log_metrics({f"{self.stage}/{name}": value for name, value in figures.items()}, step=step)

    def show(self, step: int, loss: float, samples_per_second: float) -> None:
        """Shows step, loss, samples/s and time left: in the bar, or as a line where standard error is no terminal."""
        figures = f"loss {loss:.4f}, {samples_per_second:.0f} samples/s"
        if self._bar is not None:
            self._bar.update(self._task, completed=step, figures=figures)
            return
        seconds = time.monotonic() - self._started
        left = seconds / max(1, step - self._start_step) * (self.max_steps - step)
        time_left = f"{int(left) // 60}:{int(left) % 60:02d} left"
        print(f"{self.stage} {step}/{self.max_steps}: {figures}, {time_left}", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Ends the bar and the files."""
        if self._bar is not None:
            self._bar.stop()
        self._lines.close()
        if self.logger is not None:
            self.logger.finalize("success")

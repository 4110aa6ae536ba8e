"""Reports the figures of a training on standard error, in ``metrics.jsonl`` and to the logger; warns of divergence."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from scm_media import weights
from scm_media.data import Batch
from scm_media.training.forecast import Forecast

BANDS = (0.0, 0.2, 0.5, 0.8, 1.1, 1.4, math.pi / 2)
"""Edges of the bands of t, in radians, in which terms are averaged."""


class TermAverages:
    """Averages terms of the loss over the samples since the last report, overall and in bands of t."""

    def __init__(self) -> None:
        self._batches: list[dict[str, Tensor]] = []

    def add(self, *batches: Mapping[str, Tensor]) -> None:
        """Adds the terms ``(B,)`` of batches; one of them may be t."""
        self._batches += [{name: term.detach() for name, term in terms.items()} for terms in batches]

    def take_means(self) -> dict[str, float]:
        """Returns means by ``name``, and those of bands by ``name/t0.2-0.5``, and forgets the samples."""
        if not self._batches:
            return {}
        whole = {name: torch.cat([terms[name].float().cpu() for terms in self._batches]) for name in self._batches[0]}
        self._batches = []
        t = whole.pop("t", None)
        means = {name: term.mean().item() for name, term in whole.items()}
        if t is None:
            return means
        for low, high in pairwise(BANDS):
            inside = (t >= low) & (t < high)
            if inside.any():
                means |= {f"{name}/t{low:.1f}-{high:.1f}": term[inside].mean().item() for name, term in whole.items()}
        return means


class DataWaitMeter(Iterator[Batch]):
    """Passes on the batches of a stream and measures the time spent waiting for them."""

    def __init__(self, stream: Iterator[Batch]) -> None:
        self._stream = stream
        self._waited = self._total = 0.0

    def __next__(self) -> Batch:
        begun = time.perf_counter()
        batch = next(self._stream)
        self._waited += time.perf_counter() - begun
        return batch

    def add_step(self, seconds: float) -> None:
        """Adds the duration of a step, which includes the wait for its batch."""
        self._total += seconds

    def take_fraction(self) -> float:
        """Returns the fraction of the time since the last call, in [0, 1], that steps waited for batches."""
        fraction = self._waited / self._total if self._total else 0.0
        self._waited = self._total = 0.0
        return fraction


class DivergenceMonitor:
    """Warns when a figure shows that a student diverges from its teacher, and again only after the figure recovered.

    It warns of a distance to the teacher above 1.5 times its least so far, of a g_rms above three times its median so
    far (after at least ten reports), and of any value that is not finite.
    """

    def __init__(self) -> None:
        self.latest: dict[str, float] = {}
        """The last value of each of these figures."""
        self._seen: dict[str, list[float]] = {}
        self._bad: set[str] = set()

    def check(self, figures: Mapping[str, float | None]) -> list[str]:
        """Returns warnings about the figures of one report; None stands for a figure that was not finite."""
        warnings = []
        for name, given in figures.items():
            if name != "g_rms" and not name.startswith("to_teacher/"):
                continue
            value = math.nan if given is None else given
            seen = self._seen.setdefault(name, [])
            limit, comparison = self._limit(name, seen)
            bad = not math.isfinite(value) or value > limit
            if bad and name not in self._bad:
                warnings.append(f"{name} is {value:.3g}, {comparison}")
            self._bad = self._bad | {name} if bad else self._bad - {name}
            self.latest[name] = value
            if math.isfinite(value):
                seen.append(value)
        return warnings

    @staticmethod
    def _limit(name: str, seen: Sequence[float]) -> tuple[float, str]:
        """Returns the largest good value of a figure, and what a warning says of a worse one."""
        if name == "g_rms":
            if len(seen) < 10:
                return math.inf, "which is not finite"
            return 3 * median(seen), f"its median so far {median(seen):.3g}"
        return (1.5 * min(seen), f"its best so far {min(seen):.3g}") if seen else (math.inf, "which is not finite")


class Reporter:
    """Writes the figures of one stage to its folder and shows its progress on standard error."""

    def __init__(
        self,
        folder: Path,
        stage: str,
        max_steps: int,
        start_step: int,
        logger: Any = None,
        forecast: Forecast | None = None,
    ) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self.stage, self.max_steps, self.logger = stage, max_steps, logger
        self._monitor = DivergenceMonitor()
        folder.mkdir(parents=True, exist_ok=True)
        self._drop_later_lines(folder / "metrics.jsonl", start_step)
        self._lines = open(folder / "metrics.jsonl", "a", buffering=1, encoding="utf-8")  # noqa: SIM115 (see close)
        self._started, self._start_step = time.monotonic(), start_step
        self._reported = (self._started, start_step)
        # A stage that goes on was announced when it began.
        self._forecast = forecast if start_step == 0 else None
        self._first: tuple[float, int] | None = None
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

    def _drop_later_lines(self, path: Path, start_step: int) -> None:
        """Removes what an earlier run wrote after ``start_step`` (all, if it is 0); the monitor checks the rest."""
        if path.exists():
            kept = []
            for line in path.read_text(encoding="utf-8").splitlines():
                try:
                    figures = json.loads(line)
                    if figures["step"] <= start_step and start_step > 0:
                        kept.append(line + "\n")
                        self._monitor.check(figures)
                except (json.JSONDecodeError, KeyError):
                    continue  # the line that was being written when the run was killed
            weights.write_whole(path, "".join(kept).encode())

    def advance(self, step: int) -> None:
        """Moves the progress bar to a step."""
        if self._first is None:
            self._first = (time.monotonic(), step)  # the first step also compiles and starts the loading of data
        if self._bar is not None:
            self._bar.update(self._task, completed=step)

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Writes figures to ``metrics.jsonl`` (null if not finite) and to the logger, and warns of divergence."""
        finite = {name: value if math.isfinite(value) else None for name, value in figures.items()}
        try:
            self._lines.write(json.dumps({"step": step, **finite}, allow_nan=False) + "\n")
        except OSError as error:
            reason = f"{self._lines.name} was not written ({error.strerror}); the last good checkpoint is intact"
            raise OSError(error.errno, reason) from error
        if self.logger is not None:
            self.logger.log_metrics({f"{self.stage}/{name}": value for name, value in figures.items()}, step=step)

        for warning in self._monitor.check(finite):
            print(
                f"{self.stage} {step}/{self.max_steps}: warning: {warning}: look at the sheets in samples/; if these "
                f"get worse, lower {self.stage}.optimizer.lr or raise {self.stage}.loss.tangent_warmup in "
                "another run_dir",
                file=sys.stderr,
                flush=True,
            )

    def report(self, step: int, figures: Mapping[str, float], batch_size: int) -> None:
        """Writes and shows the figures of a step, and the samples per second since the last report."""
        now, (last_time, last_step) = time.monotonic(), self._reported
        self._reported = (now, step)
        speed = (step - last_step) * batch_size / max(now - last_time, 1e-9)
        self._announce(now, step, batch_size)
        self.log(step, {**figures, "samples_per_second": speed})
        self.show(step, figures["loss"], speed, figures.get("data_wait"))

    def _announce(self, now: float, step: int, batch_size: int) -> None:
        """Says once how long the stage and the run will take, at the speed of the steps after the first."""
        if self._forecast is None or self._first is None or step in (self._first[1], self.max_steps):
            return
        first_time, first_step = self._first
        speed = (step - first_step) * batch_size / max(now - first_time, 1e-9)
        left = (self.max_steps - step) * batch_size
        print(self._forecast.line(self.stage, speed, left), file=sys.stderr, flush=True)
        self._forecast = None

    def show(self, step: int, loss: float, samples_per_second: float, data_wait: float | None = None) -> None:
        """Shows step, loss, monitored figures, samples/s and time left in the bar, or prints them without a terminal.

        data_wait: the fraction of the time that steps waited for batches.
        """
        latest = "".join(f", {name} {value:.3f}" for name, value in sorted(self._monitor.latest.items()))
        waiting = "" if data_wait is None else f", {100 * data_wait:.0f} % waiting for data"
        figures = f"loss {loss:.4f}{latest}, {samples_per_second:.0f} samples/s{waiting}"
        if self._bar is not None:
            self._bar.update(self._task, completed=step, figures=figures)
            return
        seconds = time.monotonic() - self._started
        left = seconds / max(1, step - self._start_step) * (self.max_steps - step)
        time_left = f"{int(left) // 60}:{int(left) % 60:02d} left"
        print(f"{self.stage} {step}/{self.max_steps}: {figures}, {time_left}", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Closes the bar and the files."""
        if self._bar is not None:
            self._bar.stop()
        self._lines.close()
        if self.logger is not None:
            self.logger.finalize("success")

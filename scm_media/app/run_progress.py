"""This module reads what a run folder tells: the state of each stage, steps, time left, figures and sheets."""

from __future__ import annotations

import json
import math
import os
import re
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from statistics import median
from typing import Any

import yaml

from scm_media import weights
from scm_media.latents.manifest import MANIFEST
from scm_media.latents.trajectories import TrajectoryManifest
from scm_media.pipeline.model_folder import RECIPE_FILE
from scm_media.training import checkpoints
from scm_media.training.early_stopping import has_ended, reached_step
from scm_media.training.fingerprint import stage_settings
from scm_media.training.forecast import Forecast
from scm_media.training.run_folder import find_holder
from scm_media.training.stages import STAGES

METRICS, SHEETS, WEIGHTS = "metrics.jsonl", "samples", "weights.safetensors"
DEPTH = 5
"""Runs are looked for down to so many folders below the root: ``image/fashion/main`` is three."""
NUM_RECENT = 5
"""The time that is left follows from the speed of so many reports."""
TRAINING, STOPPED, DONE, WAITING = "training now", "stopped", "done", "not begun"

Curve = tuple[list[int], list[float]]
"""A curve has steps, and the values of a figure at them; values that were not finite are NaN."""


@dataclass(frozen=True)
class StageProgress:
    """This says how far a stage is.

    done, total: steps (of the stage ``trajectories`` files). resumes: the step of the last checkpoint, from which a
    stage that was stopped goes on. seconds_left: at the speed of the last reports, of a stage that was stopped from its
    checkpoint on; None where it cannot be told.
    figures: name to curve. sheet: the newest sheet of samples, and its step.
    """

    name: str
    state: str
    done: int
    total: int
    resumes: int = 0
    samples_per_second: float | None = None
    seconds_left: float | None = None
    figures: Mapping[str, Curve] = field(default_factory=dict)
    sheet: tuple[Path, int] | None = None


@dataclass(frozen=True)
class RunProgress:
    """This holds the stages of a run in order, who trains it now, and a forecast in words.

    holder: process and host, None where nobody trains. forecast: the time left of the stage that is trained and of
    those after it, where it can be told.
    """

    stages: Sequence[StageProgress]
    holder: str | None
    forecast: str | None

    @property
    def state(self) -> str:
        """Returns the state of the whole run."""
        if self.holder is not None:
            return TRAINING
        states = {stage.state for stage in self.stages}
        return DONE if states == {DONE} else WAITING if states == {WAITING} else STOPPED


def find_runs(root: Path) -> list[str]:
    """Returns the names of the run folders below a root, relative to it, the one that was changed last first.

    Links that lead out of the root are not followed, and folders within a run folder are none.
    """
    root = root.resolve()
    found = [(_changed(run), run) for run in _walk(root, DEPTH)]
    return [run.relative_to(root).as_posix() for _, run in sorted(found, key=lambda pair: (-pair[0], pair[1]))]


def open_run(root: Path, name: str) -> Path:
    """Returns the folder of a run below a root; raises ValueError for any name that ``find_runs`` does not give."""
    if name not in find_runs(root):
        raise ValueError(f"there is no run {name!r} below {root}; refresh the list and choose one of it")
    return root.resolve() / name


def read_progress(run_dir: Path, now: float | None = None) -> RunProgress:
    """Returns the progress of a run; raises ValueError for a folder whose recipe cannot be read.

    now: the time in seconds since 1970, for tests.
    """
    config = _read_recipe(run_dir)
    holder = find_holder(run_dir)
    now = time.time() if now is None else now
    try:
        stages = [progress for stage in STAGES if (progress := _read_stage(config, run_dir, stage)) is not None]
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{run_dir / RECIPE_FILE} is no whole recipe of a run ({error!r})") from error
    last = _find_active(stages, run_dir) if holder is not None else None
    shown = [_set_state(stage, stage.name == last, _age(run_dir, stage.name, now)) for stage in stages]
    return RunProgress(shown, holder, _forecast(config, run_dir, shown))


def read_figures(file: Path) -> dict[str, Curve]:
    """Returns the figures of a ``metrics.jsonl`` by name; links, and lines that are not whole, are left out."""
    try:
        status = file.stat(follow_symlinks=False)
    except OSError:
        return {}
    if stat.S_ISLNK(status.st_mode):
        return {}
    return _read_figures(file, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=64)
def _read_figures(file: Path, changed: int, size: int) -> dict[str, Curve]:
    figures: dict[str, Curve] = {}
    for line in file.read_bytes().decode(errors="replace").splitlines():
        try:
            values = json.loads(line)
            step = int(values.pop("step"))
            found = {name: _value(value) for name, value in values.items() if _is_figure(value)}
        except (ValueError, KeyError, AttributeError, TypeError, OverflowError, RecursionError):
            continue
        for name, value in found.items():
            steps, numbers = figures.setdefault(name, ([], []))
            steps.append(step)
            numbers.append(value)
    return figures


def _is_figure(value: Any) -> bool:
    return value is None or isinstance(value, int | float)


def _value(value: float | None) -> float:
    return math.nan if value is None else float(value)


def thin(curve: Curve, most: int) -> Curve:
    """Returns at most ``most`` points of a curve: means of neighbours, each at the last step of its group."""
    steps, values = curve
    size = math.ceil(len(steps) / most)
    if size <= 1:
        return curve
    groups = [slice(first, first + size) for first in range(0, len(steps), size)]
    return [steps[group][-1] for group in groups], [_mean(values[group]) for group in groups]


def _mean(values: Sequence[float]) -> float:
    finite = [value for value in values if math.isfinite(value)]
    return sum(finite) / len(finite) if finite else math.nan


def _walk(folder: Path, depth: int) -> Iterator[Path]:
    """Yields the run folders in a folder, which is not a run folder itself; links are left alone."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        if entry.name.startswith(".") or not entry.is_dir(follow_symlinks=False):
            continue
        path = Path(entry.path)
        if (path / RECIPE_FILE).is_file() and any((path / stage).is_dir() for stage in STAGES):
            yield path
        elif depth > 1:
            yield from _walk(path, depth - 1)


def _changed(folder: Path) -> float:
    """Returns when the newest figures or the recipe of a run were written, in seconds; 0 without either."""
    files = [folder / RECIPE_FILE, *(folder / stage / METRICS for stage in STAGES)]
    return max((file.stat().st_mtime for file in files if file.is_file()), default=0.0)


def _read_recipe(run_dir: Path) -> dict[str, Any]:
    file = run_dir / RECIPE_FILE
    try:
        config = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(
            f"{file} cannot be read ({str(error).splitlines()[0]}), so its stages are not known"
        ) from error
    if not isinstance(config, dict):
        raise ValueError(f"{file} is no recipe: expected keys with values, got {type(config).__name__}")
    return config


def _read_stage(config: Mapping[str, Any], run_dir: Path, stage: str) -> StageProgress | None:
    """Returns the progress of a stage without what only a training knows.

    It is None for a stage that the run leaves out, and for a link, which may lead out of the root.
    """
    folder = run_dir / stage
    if config.get(stage) is None or folder.is_symlink():
        return None
    if stage == "trajectories":
        return _read_trajectories(folder)
    settings = stage_settings(config, stage)
    total = settings.get("max_steps")
    if not total:
        return None
    figures = read_figures(folder / METRICS)
    saved = max(checkpoints.steps(folder / "checkpoints"), default=0)
    done = max([steps[-1] for steps, _ in figures.values()], default=0)
    info = _read_header(folder / WEIGHTS)
    ended = info is not None and has_ended(info, settings)
    done = max(done, saved, 0 if info is None else reached_step(info))
    begun = bool(figures) or done > 0
    speed = _speed(figures)
    left = None if speed is None or ended else max(0, total - saved) * settings["batch_size"] / speed
    return StageProgress(
        name=stage,
        state=DONE if ended else STOPPED if begun else WAITING,
        done=done,
        total=total,
        resumes=saved,
        samples_per_second=speed,
        seconds_left=left,
        figures=figures,
        sheet=newest_sheet(folder),
    )


def _read_header(file: Path) -> dict[str, Any] | None:
    """Returns what the header of a weight file says; None without a file, and for one that is damaged."""
    try:
        return weights.read_info(file)
    except (ValueError, OSError):
        return None


def _read_trajectories(folder: Path) -> StageProgress:
    try:
        manifest = TrajectoryManifest.load(folder) if (folder / MANIFEST).is_file() else None
    except ValueError:
        manifest = None
    if manifest is None:
        return StageProgress("trajectories", WAITING, 0, 0)
    total = manifest.num_shards
    done = total - len(manifest.find_missing(folder))
    return StageProgress("trajectories", DONE if done == total else STOPPED, done, total, resumes=done)


def newest_sheet(folder: Path) -> tuple[Path, int] | None:
    """Returns the newest sheet of samples in the folder of a stage, and its step; None without.

    A link is no sheet, since it may lead out of the folder.
    """
    sheets = folder / SHEETS
    files = [] if sheets.is_symlink() else [path for path in sheets.glob("step-*.png") if not path.is_symlink()]
    named = ((path, re.fullmatch(r"step-(\d+)", path.stem)) for path in files)
    return max(((path, int(step[1])) for path, step in named if step), key=lambda pair: pair[1], default=None)


def _speed(figures: Mapping[str, Curve]) -> float | None:
    """Returns the median of the last reports' samples a second; None without reports."""
    speeds = [value for value in figures.get("samples_per_second", ([], []))[1][-NUM_RECENT:] if value > 0]
    return median(speeds) if speeds else None


def _find_active(stages: Sequence[StageProgress], run_dir: Path) -> str | None:
    """Returns the stage that a run's process trains: of those that have not ended, the one it wrote to last."""
    left = [stage.name for stage in stages if stage.state != DONE]
    written = {name: run_dir / name / (MANIFEST if name == "trajectories" else METRICS) for name in left}
    begun = [name for name in left if written[name].is_file()]
    return max(begun, key=lambda name: written[name].stat().st_mtime) if begun else next(iter(left), None)


def _age(run_dir: Path, stage: str, now: float) -> float:
    """Returns the seconds since the last report of a stage; 0 without one."""
    file = run_dir / stage / METRICS
    return max(0.0, now - file.stat().st_mtime) if file.is_file() else 0.0


def _set_state(stage: StageProgress, active: bool, age: float) -> StageProgress:
    """Returns a stage with its state; the time left of an active one is that from its last report on.

    age: seconds since that report.
    """
    if not active:
        return stage
    left = stage.seconds_left
    if left is not None and stage.total > stage.resumes:
        left = max(0.0, left * (stage.total - stage.done) / (stage.total - stage.resumes) - age)
    return replace(stage, state=TRAINING, seconds_left=left)


def _forecast(config: Mapping[str, Any], run_dir: Path, stages: Sequence[StageProgress]) -> str | None:
    """Returns a line on the time of the stage that is trained and of those after it; None where it cannot be told."""
    active = next((stage for stage in stages if stage.state == TRAINING), None)
    if active is None or active.samples_per_second is None or active.seconds_left is None:
        return None
    names = [stage.name for stage in stages]
    following = [stage.name for stage in stages[names.index(active.name) :] if stage.state != DONE]
    try:
        forecast = Forecast(config, following, run_dir)
        return forecast.line(active.name, active.samples_per_second, active.seconds_left * active.samples_per_second)
    except (ValueError, KeyError, TypeError):  # a recipe of another version
        return None

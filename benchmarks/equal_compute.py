"""Trains students of one teacher in several ways for the same time, measures them, and prints the table.

    python benchmarks/equal_compute.py image/fashion runs/image/fashion/main OUT --minutes 51 [-n 10000] [KEY=VALUE ...]

The run folder has the teacher (its guide, autoencoder and feature extractor too). The minutes are those of one core and
include the trajectories. Steps follow from speeds that are timed first, as ``scm-media bench`` does; the table's
minutes are those that each stage took. The second time of two steps is searched for each student, on samples of
another seed than those of the table. Trajectories and the warm start are made once, in OUT/shared. OUT/results.json
has what is done, which is not done again; ``--ways`` names some of the ways, so that two processes can share them once
OUT/shared is whole.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import math
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from scm_media import load
from scm_media.evaluation import EvaluationRequest, evaluate, keep_times, search_times
from scm_media.evaluation.speed import measure_speed
from scm_media.recipe import compose
from scm_media.training import run
from scm_media.weights import write_whole

GIVEN = ("autoencoder", "feature_extractor", "teacher", "guide", "latents")
WARM_SHARE = 0.72
"""The share of the warm start in the time after the trajectories, where another loss follows it."""

CONSISTENCY = ("loss@student.loss=consistency", "optimizer@student.optimizer=radam")
WIDE = ("student.loss.timesteps.mean=0.0", "student.loss.timesteps.std=2.0", "++student.loss.timesteps.stratified=true")
MATCHING = ("loss@student.loss=distribution_matching", "optimizer@student.optimizer=adam_without_momentum")
REGRESSION = (
    "loss@student.loss=regression",
    "optimizer@student.optimizer=adam",
    "student.optimizer.lr=5e-4",
    "student.ema_std=0.05",
)


@dataclass(frozen=True)
class Way:
    """Describes a way to train: overrides of the recipe, the row of the speed table that says what a step costs.

    warm: whether it begins with the warm start. trajectories: whether it pays for them. rise: the share of the steps in
    which r of the consistency loss rises to 1; None for the recipe's number of steps.
    """

    step: str
    overrides: Sequence[str] = ()
    warm: bool = True
    trajectories: bool = True
    rise: float | None = None

    def all_overrides(self, given: Sequence[str], steps: int) -> list[str]:
        """Returns the given overrides and this way's, for a student that is trained for so many steps."""
        rise = [] if self.rise is None else [f"student.loss.tangent_warmup={int(self.rise * steps)}"]
        absent = [] if self.trajectories else ["trajectories"]
        absent += [] if self.warm else ["warm_start"]
        kept = [each for each in given if each.partition(".")[0].partition("=")[0] not in absent]
        return [*kept, *(f"{group}=none" for group in absent), *self.overrides, *rise, f"student.max_steps={steps}"]


CONSISTENCY_STEP, MATCHING_STEP = "sCD step, guided teacher", "student step"
WAYS: Mapping[str, Way] = {
    "sCD": Way(CONSISTENCY_STEP, CONSISTENCY, warm=False, trajectories=False),
    "sCD, wide times": Way(CONSISTENCY_STEP, (*CONSISTENCY, *WIDE), warm=False, trajectories=False),
    "regression": Way("warm start step", REGRESSION, warm=False),
    "regression + sCD": Way(CONSISTENCY_STEP, (*CONSISTENCY, *WIDE)),
    "regression + sCD, rate 2e-5": Way(CONSISTENCY_STEP, (*CONSISTENCY, *WIDE, "student.optimizer.lr=2e-5")),
    "regression + sCD, r over half": Way(CONSISTENCY_STEP, (*CONSISTENCY, *WIDE), rise=0.5),
    "regression + anchored sCD": Way("sCD and regression", ("loss@student.loss=anchored_consistency", CONSISTENCY[1])),
    "regression + discrete": Way("two evaluations", ("loss@student.loss=discrete_consistency", CONSISTENCY[1])),
    "regression + matching": Way(MATCHING_STEP, MATCHING),
    "regression + matching + sCD": Way("matching and sCD", (*MATCHING, "student.loss.anchor_loss=consistency")),
}


def main() -> None:
    """Trains and measures the ways that are missing and prints the table."""
    commands = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands.add_argument("recipe")
    commands.add_argument("base", type=Path, help="the run folder that has the teacher")
    commands.add_argument("out", type=Path)
    commands.add_argument("--minutes", type=float, required=True, help="minutes of one core for each way")
    commands.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS), metavar="WAY")
    commands.add_argument("-n", "--num-samples", type=int, default=10_000)
    commands.add_argument("--precision", default="bf16", help="of the networks in the evaluation")
    commands.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    asked = commands.parse_intermixed_args()
    torch.set_num_threads(1)
    table = Table(asked.recipe, asked.base, asked.out, tuple(asked.overrides), asked.precision)
    for name in asked.ways:
        table.add(name, asked.minutes * 60, asked.num_samples)
    print(as_markdown(table.results["ways"]))


class Kept:
    """The figures of a study in OUT/results.json, to which several processes may add.

    recipe, overrides: what all trainings of the study have. sections: the mappings that the file has at least.
    """

    def __init__(self, recipe: str, out: Path, overrides: Sequence[str], precision: str, sections: Sequence[str]):
        self.recipe, self.out, self.precision = recipe, out, precision
        self.overrides = ("trainer.compile=false", "trainer.num_workers=0", *overrides)
        self.file, self._sections = out / "results.json", tuple(sections)
        out.mkdir(parents=True, exist_ok=True)

    @property
    def results(self) -> dict[str, Any]:
        """Returns the figures so far, read anew: other processes may have added to them."""
        found = json.loads(self.file.read_text("utf-8")) if self.file.exists() else {}
        return {section: {} for section in self._sections} | found

    def keep(self, section: str, key: str, value: Any) -> None:
        """Adds a figure to a section of the file."""
        with self.lock("results"):
            results = self.results
            results[section][key] = value
            write_whole(self.file, (json.dumps(results, indent=1, ensure_ascii=False) + "\n").encode())

    @contextlib.contextmanager
    def lock(self, name: str, wait: bool = True) -> Iterator[bool]:
        """Holds the lock of a name while its block runs, and yields whether this process got it.

        wait: waits until another process that holds it releases it; otherwise False is yielded at once.
        """
        folder = self.out / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / name).open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                yield False
            else:
                yield True  # closing the file releases it, also where the process is killed

    def train_stage(self, overrides: Sequence[str]) -> float:
        """Trains what the overrides say and returns the seconds of processor time that it took."""
        begun = time.process_time()
        run(compose(self.recipe, list(overrides)))
        return time.process_time() - begun


class Table(Kept):
    """The ways that students of a teacher were trained in, and how to add to them."""

    def __init__(self, recipe: str, base: Path, out: Path, overrides: tuple[str, ...], precision: str = "bf16") -> None:
        super().__init__(recipe, out, overrides, precision, ("trained", "ways", "speeds", "shared"))
        self.base = base

    def add(self, name: str, seconds: float, num_samples: int) -> None:
        """Trains and measures one way, unless it is there."""
        folder = self.out / folder_name(name)
        if name not in self.results["trained"]:
            self.train(name, folder, seconds)
        if name in self.results["ways"]:
            return
        trained = load(folder, precision=self.precision)
        found = search_times(trained, max(2, num_samples // 10), GRID, (), (2,))
        keep_times(trained.folder, found)
        request = EvaluationRequest(num_samples, rows=[1, 2], timing_repeats=1)
        figures = evaluate(load(folder, precision=self.precision), request, work=self.out / "evaluation")
        rows = {str(row["steps"]): {key: row[key] for key in KEPT if key in row} for row in figures["rows"]}
        self.keep("ways", name, {**self.results["trained"][name], "second_time": found["times"]["2"][1], "rows": rows})

    def train(self, name: str, folder: Path, seconds: float) -> None:
        """Trains the student of one way in a folder, for the seconds that its trajectories and warm start leave."""
        way, speeds, left = WAYS[name], self.speeds(), seconds
        spent: dict[str, float] = {}
        if way.trajectories:
            spent |= self.shared(seconds, way.warm)
            left -= sum(spent.values())
        steps = max(1, int(left / speeds[way.step]))
        stages = [*GIVEN, *(["trajectories"] if way.trajectories else []), *(["warm_start"] if way.warm else [])]
        for stage in stages:
            source = self.out / "shared" / stage
            copy_stage(source if source.exists() else self.base / stage, folder / stage)
        spent["student"] = self.train_stage(
            [*way.all_overrides(self.overrides, steps), f"run_dir={folder}", "stage=student"]
        )
        minutes = {stage: taken / 60 for stage, taken in spent.items()}
        self.keep("trained", name, {"steps": steps, "minutes": minutes})

    def speeds(self) -> dict[str, float]:
        """Returns the seconds of a step of each kind, and of a trajectory; timed once a folder."""
        if not self.results["speeds"]:
            table = measure_speed(compose(self.recipe, [*self.overrides, *MATCHING]), torch.device("cpu"))
            found = {row["what"]: row["seconds_median"] for row in table["rows"]}
            regression, consistency = found["warm start step"], found.get(CONSISTENCY_STEP, found["sCD step"])
            found[CONSISTENCY_STEP] = consistency
            found["sCD and regression"] = consistency + regression
            found["two evaluations"] = regression + found["one evaluation"] + (consistency - found["sCT step"])
            found["matching and sCD"] = found[MATCHING_STEP] - regression + consistency
            for step, seconds in found.items():
                self.keep("speeds", step, seconds)
        speeds: dict[str, float] = self.results["speeds"]
        return speeds

    def shared(self, seconds: float, warm: bool) -> dict[str, float]:
        """Makes the trajectories and the warm start unless they are there; returns the seconds that each took."""
        folder, spent = self.out / "shared", self.results["shared"]
        for stage in ("trajectories", "warm_start") if warm else ("trajectories",):
            if stage in spent:
                continue
            for given in GIVEN:
                copy_stage(self.base / given, folder / given)
            overrides = [*self.overrides, f"run_dir={folder}", f"stage={stage}"]
            if stage == "warm_start":
                steps = int(WARM_SHARE * (seconds - spent["trajectories"]) / self.speeds()["warm start step"])
                overrides.append(f"warm_start.max_steps={steps}")
            spent[stage] = self.train_stage(overrides)
            self.keep("shared", stage, spent[stage])
        return {stage: spent[stage] for stage in (("trajectories", "warm_start") if warm else ("trajectories",))}


GRID = (0.35, 0.5, 0.7, 0.9, 1.1, 1.3)
"""The second times that are tried, in radians."""
KEPT = ("frechet", "recall", "precision", "accuracy")


def folder_name(way: str) -> str:
    """Returns the name of the folder of a way's student."""
    return way.replace(" ", "-").replace(",", "").replace("+", "and")


def copy_stage(source: Path, target: Path) -> None:
    """Gives the folder of a stage another name, without checkpoints and sheets, unless it is there or has nothing."""
    if source.exists() and not target.exists():
        left_out = shutil.ignore_patterns("checkpoints", "samples")
        shutil.copytree(source, target, ignore=left_out, copy_function=_link)


def _link(source: str, target: str) -> None:
    """Gives a file another name: trajectories of notes are 6 GB, and training replaces files and never edits them."""
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy2(source, target)


def as_markdown(ways: Mapping[str, Any]) -> str:
    """Returns the table: minutes of a core by stage, steps, and the figures of one and two steps."""
    lines = [
        "| way | trajectories + warm start + student, minutes | student's steps | one step | two steps | second time |",
        "|---|---|---|---|---|---|",
    ]
    for name, way in ways.items():
        minutes = " + ".join(
            f"{way['minutes'].get(stage, 0):.0f}" for stage in ("trajectories", "warm_start", "student")
        )
        figures = [f"{way['rows'][steps]['frechet']:.3f}" for steps in ("1", "2")]
        figures.append(f"{way.get('second_time', math.nan):g}")
        lines.append(f"| {name} | {minutes} | {way['steps']:,} | {' | '.join(figures)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()

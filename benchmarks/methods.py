"""Trains students of one teacher by every method for the same number of operations, with several seeds.

    python benchmarks/methods.py image/fashion image/fashion OUT --operations 1e14 [--seeds 0 1] [-n 5000]
         [KEY=VALUE ...]

The second argument is the model that teacher, guide, autoencoder and feature network are taken from: a bundled name, a
run or a model folder. The operations are those of matrix products, convolutions and attention, two for a multiply-add,
forward and backward; those of the trajectories and of the warm start are counted for each student that has them, though
both are made once, in OUT/shared. All students have the same network, data, batch size, optimizer of their method, and
labels and noise of their samples; the times of 1, 2 and 4 steps are searched for each on samples of another seed.

OUT/results.json has what is done, which is not done again, so that the study may stop and go on. Several processes may
share it: each takes the next student that no other one has begun.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from equal_compute import CONSISTENCY, GRID, KEPT, MATCHING, REGRESSION, WIDE, Kept, copy_stage, folder_name
from samples import say

from scm_media import load
from scm_media.evaluation import EvaluationRequest, evaluate, keep_times, search_times
from scm_media.evaluation.speed import STUDENT_STEP, Bench
from scm_media.nn.operations import count_operations
from scm_media.pipeline import ModelFolder
from scm_media.recipe import compose
from scm_media.samplers import SAMPLERS
from scm_media.training.context import prepare
from scm_media.training.texts import stand_in

STEPS = (1, 2, 4)
GIVEN = ("autoencoder", "feature_extractor", "teacher", "guide", "reference")
PLACES = {"reference": "feature_extractor/reference.safetensors"}
WARM_SHARE = 0.72
"""The share of the warm start in the operations after the trajectories."""
FROM_DATA = ("student.objective=sct",)
GRID_OF_TIMES = ("loss@student.loss=discrete_grid", "optimizer@student.optimizer=radam")
SHRINKING = ("loss@student.loss=discrete_consistency", "optimizer@student.optimizer=radam")


@dataclass(frozen=True)
class Method:
    """A method: overrides of the recipe; trajectories, warm: whether it has them, and pays for them.

    rise: the fraction of the steps in which the weight r of the tangent rises; None for a loss in which it does not.
    """

    overrides: Sequence[str]
    trajectories: bool = False
    warm: bool = False
    rise: float | None = None


def _loss(name: str, optimizer: str = "radam") -> tuple[str, str]:
    return f"loss@student.loss={name}", f"optimizer@student.optimizer={optimizer}"


METHODS: Mapping[str, Method] = {
    "sCD": Method((*CONSISTENCY, *WIDE), rise=0.25),
    "sCT": Method((*CONSISTENCY, *WIDE, *FROM_DATA), rise=0.25),
    "consistency distillation (grid)": Method(GRID_OF_TIMES),
    "consistency training (grid)": Method((*GRID_OF_TIMES, *FROM_DATA)),
    "shrinking gap, distillation": Method(SHRINKING),
    "Easy Consistency Tuning": Method((*SHRINKING, *FROM_DATA)),
    "MeanFlow, distillation": Method(_loss("mean_flow")),
    "MeanFlow": Method((*_loss("mean_flow"), *FROM_DATA)),
    "improved MeanFlow": Method((*_loss("improved_mean_flow"), *FROM_DATA)),
    "Align Your Flow, Eulerian": Method(_loss("flow_map"), rise=0.25),
    "Align Your Flow, Lagrangian": Method(_loss("lagrangian_flow_map"), rise=0.25),
    "regression": Method(REGRESSION, trajectories=True),
    "matching": Method(MATCHING, trajectories=True),
    "rCM": Method(_loss("rcm", "adam_without_momentum"), trajectories=True),
    "regression + sCD": Method((*CONSISTENCY, *WIDE), trajectories=True, warm=True, rise=0.25),
    "regression + matching": Method(MATCHING, trajectories=True, warm=True),
    "regression + rCM": Method(_loss("rcm", "adam_without_momentum"), trajectories=True, warm=True),
}


class Study(Kept):
    """The students of every method and seed, and how to add to them."""

    def __init__(self, recipe: str, teacher: str, out: Path, overrides: Sequence[str], precision: str) -> None:
        super().__init__(recipe, out, overrides, precision, ("operations", "shared", "trained", "students"))
        self.teacher = teacher

    def add(self, name: str, seed: int, budget: float, num_samples: int) -> None:
        """Trains and measures the student of a method and a seed, unless it is there or another process does so."""
        key = f"{name}, seed {seed}"
        with self.lock(folder_name(key), wait=False) as own:
            if own:
                self._add(name, seed, key, budget, num_samples)

    def _add(self, name: str, seed: int, key: str, budget: float, num_samples: int) -> None:
        folder = self.out / folder_name(key)
        if key not in self.results["trained"]:
            self.train(name, key, seed, folder, budget)
        if key in self.results["students"]:
            return
        trained = load(folder, precision=self.precision)
        keep_times(trained.folder, search_times(trained, max(2, num_samples // 10), GRID, (), STEPS[1:]))
        request = EvaluationRequest(num_samples, rows=STEPS, timing_repeats=1)
        figures = evaluate(load(folder, precision=self.precision), request, work=self.out / "evaluation")
        rows = {str(row["steps"]): {each: row[each] for each in KEPT if each in row} for row in figures["rows"]}
        self.keep("students", key, {**self.results["trained"][key], "rows": rows})
        say(f"{key}: " + ", ".join(f"{steps} steps {row['frechet']:.4g}" for steps, row in rows.items()))

    def train(self, name: str, key: str, seed: int, folder: Path, budget: float) -> None:
        """Trains the student of a method in a folder, for the operations that trajectories and warm start leave."""
        method, left = METHODS[name], budget
        for stage in ("trajectories", "warm_start"):
            if method.trajectories if stage == "trajectories" else method.warm:
                left -= self.shared(stage, left)
                copy_stage(self.out / "shared" / stage, folder / stage)
        overrides = self._overrides(method, f"seed={seed}")
        steps = int(left / self.operations(name, overrides))
        if steps < 1:
            raise SystemExit(f"{name}: {budget:.3g} operations are too few for a step: give more by --operations")
        self._take_given(folder)
        rise = [] if method.rise is None else [f"student.loss.tangent_warmup={int(method.rise * steps)}"]
        limit = [f"student.max_steps={steps}", f"run_dir={folder}", "stage=student"]
        seconds = self.train_stage([*overrides, *rise, *limit])
        self.keep("trained", key, {"method": name, "seed": seed, "steps": steps, "minutes": seconds / 60})

    def shared(self, stage: str, left: float) -> float:
        """Makes trajectories or warm start unless they are there; returns their operations."""
        with self.lock("shared"):
            if stage not in self.results["shared"]:
                self._make_shared(stage, left)
        return float(self.results["shared"][stage])

    def _make_shared(self, stage: str, left: float) -> None:
        self._take_given(self.out / "shared")
        overrides = [*self.overrides, f"run_dir={self.out / 'shared'}", f"stage={stage}"]
        if stage == "trajectories":
            operations = self._trajectory_operations()
            if operations >= left:
                raise SystemExit(f"the trajectories take {operations:.3g} operations, more than --operations")
        else:
            step = self.operations("warm start", self._overrides(METHODS["regression"]))
            steps = int(WARM_SHARE * left / step)
            operations = steps * step
            overrides.append(f"warm_start.max_steps={steps}")
        self.train_stage(overrides)
        self.keep("shared", stage, operations)

    def operations(self, name: str, overrides: Sequence[str]) -> float:
        """Returns the operations of a training step of the student; counted once a folder and method."""
        if name not in self.results["operations"]:
            bench = self._bench(overrides)
            jobs = bench.jobs()
            step = jobs[STUDENT_STEP] if STUDENT_STEP in jobs else jobs[bench.student_step]
            from_data = bench.context.config["student"]["objective"] == "sct"
            self.keep("operations", name, count_operations(jobs["sCT step"] if from_data else step))
        return float(self.results["operations"][name])

    def _trajectory_operations(self) -> float:
        bench = self._bench(self.overrides)
        settings = bench.context.config["trajectories"]
        per_call = count_operations(bench.evaluate_teacher) / bench.batch_size
        calls = SAMPLERS.find(settings["sampler"], "trajectories.sampler").evaluations(settings["steps"])
        return per_call * calls * float(settings["num"])

    def _bench(self, overrides: Sequence[str]) -> Bench:
        context = prepare(compose(self.recipe, list(overrides)))
        stand_in(context)
        return Bench(context, torch.device("cpu"), None)

    def _overrides(self, method: Method, *more: str) -> list[str]:
        absent = [] if method.trajectories else ["trajectories"]
        absent += [] if method.warm else ["warm_start"]
        kept = [each for each in self.overrides if each.partition(".")[0].partition("=")[0] not in absent]
        return [*kept, *(f"{group}=none" for group in absent), *more, *method.overrides]

    def _take_given(self, folder: Path) -> None:
        """Copies the networks that students are trained and measured with into a run folder."""
        source = ModelFolder.open(self.teacher)
        for name in GIVEN:
            if source.has(name):
                target = folder / PLACES.get(name, f"{name}/weights.safetensors")
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source.file(name), target)


def as_markdown(students: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns the table: the Fréchet distances of each method in 1, 2 and 4 steps, best in two steps first.

    Over several seeds a figure is their mean, with the standard deviation between them.
    """
    methods: dict[str, list[Mapping[str, Any]]] = {}
    for student in students.values():
        methods.setdefault(student["method"], []).append(student)

    def distances(name: str, steps: int) -> list[float]:
        return [student["rows"][str(steps)]["frechet"] for student in methods[name]]

    lines = ["| method | seeds | student's steps | 1 step | 2 steps | 4 steps |", "|---|---:|---:|---:|---:|---:|"]
    for name in sorted(methods, key=lambda each: mean(distances(each, 2))):
        figures = [_with_spread(distances(name, steps)) for steps in STEPS]
        steps = methods[name][0]["steps"]
        lines.append(f"| {name} | {len(methods[name])} | {steps:,} | {' | '.join(figures)} |")
    return "\n".join(lines) + "\n"


def _with_spread(values: Sequence[float]) -> str:
    return f"{mean(values):.4g}" + (f" ± {stdev(values):.2g}" if len(values) > 1 else "")


def main(arguments: Sequence[str] | None = None) -> None:
    """Trains and measures the students that are missing and prints the table."""
    commands = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands.add_argument("recipe")
    commands.add_argument("teacher", help="the model that the teacher is taken from")
    commands.add_argument("out", type=Path)
    commands.add_argument("--operations", type=float, required=True, metavar="N", help="for each student")
    commands.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS), metavar="METHOD")
    commands.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], metavar="I")
    commands.add_argument("-n", "--num-samples", type=int, default=5_000)
    commands.add_argument("--precision", default="float32", help="of the networks in the evaluation")
    commands.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    asked = commands.parse_intermixed_args(arguments)
    torch.set_num_threads(1)
    study = Study(asked.recipe, asked.teacher, asked.out, asked.overrides, asked.precision)
    for seed in asked.seeds:
        for name in asked.methods:
            study.add(name, seed, asked.operations, asked.num_samples)
    print(as_markdown(study.results["students"]))


if __name__ == "__main__":
    main()

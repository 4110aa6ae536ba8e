"""Plans a training that fits a number of hours: the network, and how much of each stage. Nothing is measured here."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scm_media.evaluation.machine import EXCHANGE, TIMED, Machine, evaluated_seconds

MARGIN = 0.1
"""The fraction of the hours that is left over for what was not foreseen."""
SHARES = {"feature_extractor": 0.08, "autoencoder": 0.15}
"""Fractions of the time that are given to the stages before the teacher, where the recipe has them."""
LATER_SHARES = {"guide": 0.05, "trajectories": 0.1, "warm_start": 0.2, "student": 0.1, "evaluation": 0.05}
"""Fractions of the rest; the teacher gets what these leave, about half."""
MOST = {"feature_extractor": 100_000, "autoencoder": 250_000, "trajectories": 32_768}
"""Samples beyond which a stage gains little; the student's are those of the recipe that a plan is made for."""
MOST_EVALUATED = 10_000
LEAST_EVALUATED = 100
"""Samples below which an evaluation is left out of a plan."""
LEAST = {
    "feature_extractor": 320,
    "autoencoder": 128,
    "teacher": 640,
    "guide": 64,
    "trajectories": 64,
    "warm_start": 320,
    "student": 64,
}
"""Samples without which a stage is not worth its start."""
PASSES = 16
"""Passes over the trajectories beyond which a warm start gains nothing."""
GUIDE_FRACTION = 1 / 8
"""The most samples that a guide sees, as a fraction of the teacher's: it has to be worse than the teacher."""
ENOUGH = 300_000
"""Samples that a teacher should see before a larger network is worth its time."""
FEW = 100_000
"""Samples below which a teacher shows little."""
MANY_PASSES = 200
"""Passes over the data after which networks learn the examples by heart."""

TRAJECTORY_STEPS = 16
TEACHER_STEPS = 16
PREVIEWED = 16
PREVIEWS = 9
PREVIEW_EVALUATIONS = 15
VALIDATIONS = 10
START_SECONDS = 12.0
"""Seconds in which a command loads its libraries; processes beside the first take as long once more."""
STAGE_SECONDS = 4.0
"""Seconds in which a stage loads and saves its networks."""
COMPILE_SECONDS = 200.0
"""Seconds in which the networks of one stage are compiled on a CPU."""
COMPILE_GAIN = 1.15
"""The speed of compiled training steps over that of others, at the least."""


@dataclass(frozen=True)
class Network:
    """Describes a size of the backbone: its keys, the number of its parameters, and the multiply-adds of a sample."""

    keys: Mapping[str, Any]
    parameters: int
    multiply_adds: int


@dataclass(frozen=True)
class Facts:
    """Describes the data and the recipe: training files, held-out files, and the networks of the recipe.

    num_variants: the latents of each file that are kept; 0 where files are read and encoded at every step.
    most_student: samples of all steps of the student, beyond which it gains little.
    """

    num_files: int
    num_held_out: int
    has_classes: bool
    trains_autoencoder: bool
    most_student: int
    num_variants: int = 0
    can_compile: bool = False


@dataclass(frozen=True)
class Stage:
    """Holds the size of a stage: num, the samples of all its steps together, and the seconds of the whole stage."""

    num: int
    seconds: float

    def steps(self, batch_size: int) -> int:
        """Returns the number of steps of a training."""
        return max(1, self.num // batch_size)


@dataclass(frozen=True)
class Plan:
    """Plans the training of one network, which is given by its index in the machine's list, stage by stage.

    stages: by name, in order, with ``evaluation`` last where there are classes to evaluate by. start: seconds of
    starting up and of looking at the files. hours: those that were asked for.
    """

    hours: float
    network: int
    compiled: bool
    start: float
    stages: Mapping[str, Stage]

    @property
    def seconds(self) -> float:
        """The seconds that everything is expected to take."""
        return self.start + sum(stage.seconds for stage in self.stages.values())


def make_plan(
    hours: float, facts: Facts, machine: Machine, families: Sequence[Sequence[Network]], batch_size: int = 64
) -> Plan:
    """Returns the plan of the largest network whose teacher sees enough samples in the hours.

    families: networks from small to large, of the finest patches first; coarser patches are taken where no network of
    the finer ones sees enough. The machine's networks are those of all families in this order. Raises ValueError for
    too few hours, which names the least.
    """
    plans = _plans(hours, facts, machine, families)
    for family in plans:
        good = [plan for plan in family if plan is not None and plan.stages["teacher"].num >= ENOUGH]
        if good:
            return good[-1]
    possible = [plan for family in plans for plan in family if plan is not None]
    if not possible:
        least = _least_hours(lambda more: any(map(any, _plans(more, facts, machine, families))), hours)
        enough = math.ceil(least * 100) / 100
        raise ValueError(
            f"--hours {hours:g} is too few: on this machine the least in which every stage gets a few steps is about "
            f"{enough:g}, and {hours_for(FEW, facts, machine, families):.2g} before a teacher shows much; give --hours "
            f"{enough:g} to try it out, more for a model, or a faster --device"
        )
    return max(possible, key=lambda plan: plan.stages["teacher"].num)


def hours_for(num: int, facts: Facts, machine: Machine, families: Sequence[Sequence[Network]]) -> float:
    """Returns the hours in which the teacher of some network sees so many samples."""

    def enough(hours: float) -> bool:
        plans = [plan for family in _plans(hours, facts, machine, families) for plan in family if plan is not None]
        return any(plan.stages["teacher"].num >= num for plan in plans)

    return _least_hours(enough, 0.01)


def _least_hours(enough: Callable[[float], bool], start: float) -> float:
    """Returns the least hours that are enough, to a hundredth, searched upwards from a start."""
    low, high = 0.0, start
    while not enough(high):
        low, high = high, 2 * high
    while high / max(low, 1e-9) > 1.01:
        middle = (low + high) / 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _plans(
    hours: float, facts: Facts, machine: Machine, families: Sequence[Sequence[Network]]
) -> list[list[Plan | None]]:
    found, number = [], 0
    for family in families:
        found.append([_plan(hours, facts, machine, number + index) for index in range(len(family))])
        number += len(family)
    return found


def _plan(hours: float, facts: Facts, machine: Machine, network: int) -> Plan | None:
    """Returns the plan of one network: compiled where that leaves its teacher more samples; None for too few hours."""
    eager = _fill(hours, facts, _Costs(machine, network, facts), network)
    if not facts.can_compile or eager is None:
        return eager
    compiled = _fill(hours, facts, _Costs(machine, network, facts, compiled=True), network)
    if compiled is None or compiled.stages["teacher"].num <= eager.stages["teacher"].num:
        return eager
    return compiled


class _Costs:
    """Seconds of a sample in each stage, on all processes together, and of what a stage costs whatever its length."""

    def __init__(self, machine: Machine, network: int, facts: Facts, compiled: bool = False) -> None:
        seconds, num = machine.seconds, machine.num_processes
        diffusion, evaluation = machine.networks[network]
        guide_step, guide = machine.guide
        larger = diffusion / machine.networks[0][0]
        gain = COMPILE_GAIN if compiled else 1.0
        self.compiled, self.seconds, self.facts = compiled, seconds, facts
        encoded = seconds["load"] + seconds["encode"]
        read = 0.0 if facts.num_variants else encoded
        self.latents = (facts.num_files + facts.num_held_out) * facts.num_variants * encoded
        exchange = EXCHANGE if num > 1 else 1.0
        guided = evaluation + guide
        self.samples = {
            "teacher": (exchange * diffusion / gain + read) / num,
            "guide": (exchange * guide_step / gain + read) / num,
            "trajectories": (TRAJECTORY_STEPS * guided / gain + read) / num,
            "warm_start": exchange * larger * seconds["regression"] / gain / num,
            "student": exchange * larger * seconds["student"] / gain / num,
            # One process evaluates, whatever number trained.
            "evaluation": evaluated_seconds(
                TEACHER_STEPS, guided, evaluation, seconds["decode"] + seconds.get("feature", 0.0)
            ),
        }
        for stage, step in (("feature_extractor", "feature_step"), ("autoencoder", "autoencoder_step")):
            if step in seconds:
                self.samples[stage] = (exchange * seconds[step] + seconds["load"]) / num
        self.start = START_SECONDS * min(num, 2) + facts.num_files * seconds["load"]
        self.previewed = min(PREVIEWED, facts.num_held_out)
        self.evaluation, self.guided = evaluation, guided

    def fixed(self, stage: str) -> float:
        """Returns the seconds that a stage takes beside its samples."""
        seconds, facts = self.seconds, self.facts
        if stage == "evaluation":
            looked_at = facts.num_files * (2 * seconds["load"] + seconds["feature"])
            return START_SECONDS + looked_at + TIMED * self.samples["evaluation"]
        if stage in ("feature_extractor", "trajectories"):
            return STAGE_SECONDS
        if stage == "autoencoder":
            return STAGE_SECONDS + num_fitted(facts) * (seconds["load"] + seconds["encode"])
        validated = VALIDATIONS * min(1024, 4 * facts.num_held_out) * self.evaluation
        calls = PREVIEW_EVALUATIONS * self.evaluation if stage in ("teacher", "guide") else 3 * self.evaluation
        once = 0.0 if stage in ("teacher", "guide") else self.previewed * PREVIEW_EVALUATIONS * self.guided
        previews = PREVIEWS * self.previewed * (calls + 2 * seconds["decode"]) + once
        encoding = self.latents if stage == "teacher" else 0.0
        return STAGE_SECONDS + encoding + previews + validated + (COMPILE_SECONDS if self.compiled else 0.0)


def num_fitted(facts: Facts) -> int:
    """Returns the number of samples that the scale of latents is measured on: each once, 4,096 at most."""
    return min(facts.num_files, 4096)


def _fill(hours: float, facts: Facts, costs: _Costs, network: int) -> Plan | None:
    """Returns the plan that shares the hours out; None where a stage gets less than its least.

    The evaluation is left out where there is no time for enough samples.
    """
    names = ["teacher", "guide", "trajectories", "warm_start", "student"]
    if facts.trains_autoencoder:
        names.insert(0, "autoencoder")
    if not facts.has_classes:
        return _share(hours, names, facts, costs, network)
    names.insert(0, "feature_extractor")
    measured = _share(hours, [*names, "evaluation"], facts, costs, network)
    if measured is not None and measured.stages["evaluation"].num >= LEAST_EVALUATED:
        return measured
    return _share(hours, names, facts, costs, network)


def _share(hours: float, names: Sequence[str], facts: Facts, costs: _Costs, network: int) -> Plan | None:
    """Returns the plan that shares the hours out among these stages; None where one gets less than its least."""
    fixed = {name: costs.fixed(name) for name in (*names, "autoencoder")}  # every autoencoder's latents are measured
    left = hours * 3600 * (1 - MARGIN) - costs.start - sum(fixed.values())
    if left <= 0:
        return None
    nums: dict[str, int] = {}
    for name in names:
        if name in SHARES:
            nums[name] = min(MOST[name], int(SHARES[name] * left / costs.samples[name]))
    left -= sum(num * costs.samples[name] for name, num in nums.items())
    given = {name: int(share * left / costs.samples[name]) for name, share in LATER_SHARES.items() if name in names}
    nums["trajectories"] = min(given["trajectories"], MOST["trajectories"])
    nums["warm_start"] = min(given["warm_start"], PASSES * nums["trajectories"])
    nums["student"] = min(given["student"], facts.most_student)
    half = left * (1 - sum(LATER_SHARES.values())) / costs.samples["teacher"]
    nums["guide"] = min(given["guide"], max(LEAST["guide"], int(GUIDE_FRACTION * half)))
    if "evaluation" in names:
        nums["evaluation"] = min(given["evaluation"], MOST_EVALUATED)
    spent = sum(nums[name] * costs.samples[name] for name in (*LATER_SHARES,) if name in nums)
    nums["teacher"] = int((left - spent) / costs.samples["teacher"])
    if any(nums[name] < least for name, least in LEAST.items() if name in names):
        return None
    stages = {name: Stage(nums[name], fixed[name] + nums[name] * costs.samples[name]) for name in names}
    start = costs.start + (0.0 if facts.trains_autoencoder else fixed["autoencoder"])
    return Plan(hours, network, costs.compiled, start, stages)

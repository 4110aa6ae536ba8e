"""The time that is left of a run, from the measured speed of one stage and the relative costs of the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scm_media.build import TARGET
from scm_media.samplers import SAMPLERS
from scm_media.training import checkpoints
from scm_media.training.fingerprint import stage_settings

EVALUATION = 1 / 3
"""The cost of an evaluation in units of a diffusion training step of the same sample."""
STEPS = {"ConsistencyLoss": 2.0, "DistributionMatchingLoss": 3.6, "RegressionLoss": 1.0}
"""The cost of a student's training step in these units, by its loss (measured, docs/distillation.md)."""
USUAL_STEP = 2.0


class Forecast:
    """Estimates how long the stages that are still to be trained take.

    stages: those to be trained, in order. The stages feature_extractor and autoencoder train other networks than the
    backbone: nothing is said about them before they run, nor about the others from their speed.
    """

    def __init__(self, config: Mapping[str, Any], stages: Sequence[str], run_dir: Path) -> None:
        self.work = {stage: work for stage in stages if (work := _work(config, stage, run_dir))}
        self._costs = {stage: _sample_cost(config, stage) for stage in self.work}

    def line(self, stage: str, samples_per_second: float, samples_left: float) -> str:
        """Returns a sentence: a stage's measured speed, its time left, and the run's where it can be told."""
        seconds = samples_left / samples_per_second
        said = f"{stage}: {samples_per_second:.0f} samples/s, {duration(seconds)} left for this stage"
        following = list(self.work)[list(self.work).index(stage) + 1 :] if stage in self.work else []
        if not following:
            return said
        unit = 1 / samples_per_second / self._costs[stage]
        whole = seconds + sum(self.work[name] * unit for name in following)
        return f"{said}, about {duration(whole)} for this and {', '.join(following)}"


def duration(seconds: float) -> str:
    """Returns a duration in hours and minutes, or in minutes and seconds below an hour."""
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d} min"
    return f"{whole // 3600}:{whole % 3600 // 60:02d} h"


def _work(config: Mapping[str, Any], stage: str, run_dir: Path) -> float:
    """Returns what is left of a stage in samples of a diffusion step; 0 for a stage that trains no backbone."""
    if stage in ("feature_extractor", "autoencoder"):
        return 0.0
    settings = stage_settings(config, stage)
    if stage == "trajectories":
        evaluations = SAMPLERS.find(settings["sampler"], "trajectories.sampler").evaluations(settings["steps"])
        return settings["num"] * evaluations * _sample_cost(config, stage)
    done = max(checkpoints.steps(run_dir / stage / "checkpoints"), default=0)
    return max(0, settings["max_steps"] - done) * settings["batch_size"] * _sample_cost(config, stage)


def _sample_cost(config: Mapping[str, Any], stage: str) -> float:
    """Returns the cost of a sample in a step, or in an evaluation of a trajectory, in units of the teacher's step."""
    if stage == "guide":
        return _guide_cost(config)
    if stage == "trajectories":
        return EVALUATION * guided_cost(config)
    if stage == "teacher":
        return 1.0
    loss = stage_settings(config, stage)["loss"][TARGET].rpartition(".")[2]
    return STEPS.get(loss, USUAL_STEP)


def guided_cost(config: Mapping[str, Any]) -> float:
    """Returns the cost of an evaluation of the teacher with its guide, in units of one without."""
    return 1 + _guide_cost(config)


def _guide_cost(config: Mapping[str, Any]) -> float:
    """Returns the cost of the guide over the teacher's, as blocks of a transformer have it where sizes are given.

    It is 0 without a guide.
    """
    if config["guide"] is None:
        return 0.0
    whole, own = config["backbone"], {**config["backbone"], **config["guide"]["backbone"]}
    if not {"width", "depth"} <= whole.keys():
        return 1.0
    return float(own["depth"] * own["width"] ** 2 / (whole["depth"] * whole["width"] ** 2))

"""How the gap between student and teacher changes with the number of parameters, over several trained models."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from scm_media.adapters.lora_files import is_lora
from scm_media.evaluation.kept_figures import Measurement
from scm_media.evaluation.plots import Plot, Point, Series
from scm_media.evaluation.row_text import compared_teacher, interval, ratio_bounds, step_count, students
from scm_media.pipeline import ModelFolder
from scm_media.pipeline.card import format_operations

STEPS = (1, 2)
T_95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
"""Quantiles of Student's t distribution that 95 % lie within, for 1 to 10 degrees of freedom."""


@dataclass(frozen=True)
class Size:
    """A model's number of parameters (student and teacher) and its rows: the teacher's, the student's by steps."""

    name: str
    parameters: int
    teacher_parameters: int
    teacher: Mapping[str, Any]
    students: Mapping[int, Mapping[str, Any]]

    def ratio(self, steps: int) -> float:
        """Returns the student's distance over the teacher's."""
        return self.students[steps]["frechet"] / self.teacher["frechet"]


@dataclass(frozen=True)
class Trend:
    """The line through log(ratio) over log(parameters) of student and teacher in some steps.

    slope: −0.1 says that ten times the parameters multiply the ratio by 10^−0.1. margin: half of its 95 % interval;
    None of two sizes, which a line always meets. first, last: parameters and ratio of the smallest and largest model.
    """

    steps: int
    slope: float
    margin: float | None
    first: tuple[int, float]
    last: tuple[int, float]

    @property
    def narrows(self) -> bool | None:
        """Returns whether the gap narrows with size; None where the figures do not tell."""
        if self.margin is None or abs(self.slope) <= self.margin:
            return None
        return self.slope < 0


def read_sizes(measurements: Sequence[Measurement]) -> list[Size]:
    """Returns the models by size. Raises ValueError for models without networks, teacher or few steps, and one size."""
    found = sorted(map(_read_size, measurements), key=lambda size: size.parameters)
    if len({size.parameters for size in found}) < 2:
        raise ValueError(
            f"--size compares models of several sizes, and all of these have {found[0].parameters:,} parameters; name "
            "runs of a recipe with other widths or depths"
        )
    return found


def _read_size(measured: Measurement) -> Size:
    folder, teacher = measured.folder, compared_teacher(measured.metrics)
    if folder is None:
        raise ValueError(f"{measured.source} holds figures and no networks: for --size name its run or model folder")
    rows = {steps: row for steps, row in students(measured.metrics).items() if steps in STEPS}
    if teacher is None or teacher["frechet"] <= 0 or not rows:
        missing = "rows of 1 or 2 steps" if teacher else "a teacher's row"
        raise ValueError(
            f"{measured.source} has figures without {missing}: measure it by scm-media evaluate {measured.source} "
            "--curve"
        )
    if not folder.has("student"):
        raise ValueError(f"{folder.path} has no student yet: finish its training by scm-media train")
    own = count_parameters(folder, "student")
    of_teacher = count_parameters(folder, "teacher") if folder.has("teacher") else own
    return Size(measured.name, own, of_teacher, teacher, rows)


def count_parameters(folder: ModelFolder, name: str) -> int:
    """Returns the numbers in the weights of a network, of a LoRA student with those of its teacher."""
    component = folder.read(name, check=False)  # mapped from the file, of which the header alone is read
    own = sum(tensor.numel() for tensor in component.state.values() if tensor.is_floating_point())
    return own + count_parameters(folder, "teacher") if is_lora(component.config) else own


def fit_trend(parameters: Sequence[int], ratios: Sequence[float], steps: int) -> Trend:
    """Returns the least-squares line of log(ratio) over log(parameters); needs two sizes at least."""
    across, along = np.log(np.asarray(parameters, float)), np.log(np.asarray(ratios, float))
    centred = across - across.mean()
    spread = float((centred**2).sum())
    slope = float((centred * along).sum()) / spread
    freedom = len(across) - 2
    margin = None
    if freedom > 0:
        rest = along - along.mean() - slope * centred
        quantile = T_95[min(freedom, len(T_95)) - 1]  # of more models the last one, which is a little too wide
        margin = quantile * math.sqrt(float((rest**2).sum()) / freedom / spread)
    order = np.argsort(parameters)
    first, last = order[0], order[-1]
    ends = [(int(parameters[each]), float(ratios[each])) for each in (first, last)]
    return Trend(steps, slope, margin, ends[0], ends[1])


def find_trends(sizes: Sequence[Size]) -> list[Trend]:
    """Returns the trend of each number of steps that at least two sizes have."""
    found = []
    for steps in STEPS:
        having = [size for size in sizes if steps in size.students and size.ratio(steps) > 0]
        if len({size.parameters for size in having}) > 1:
            found.append(fit_trend([s.parameters for s in having], [s.ratio(steps) for s in having], steps))
    return found


def describe_trend(trend: Trend) -> str:
    """Returns a trend in words, with its numbers."""
    (small, before), (large, after) = trend.first, trend.last
    steps = step_count(trend.steps)
    margin = "" if trend.margin is None else f" ± {trend.margin:.2g} (95 %)"
    told = (
        f"{steps}: {before:.3g} times the teacher's distance at {format_operations(small)} parameters, {after:.3g} "
        f"times at {format_operations(large)}; slope of log ratio over log parameters {trend.slope:.3g}{margin}"
    )
    factor = f"ten times the parameters multiply the ratio by {10**trend.slope:.3g}"
    if trend.margin is None:
        return f"{told}. Two sizes show no trend: measure a third one"
    if trend.narrows is None:
        return f"{told}. Whether the gap changes with size cannot be told from these figures"
    return f"{told}. The gap {'narrows' if trend.narrows else 'widens'}: {factor}"


def size_plots(sizes: Sequence[Size]) -> list[Plot]:
    """Returns distances over parameters, of the teacher and of each number of steps, and the relative gaps."""
    teacher = [
        Point(size.teacher_parameters, size.teacher["frechet"], interval(size.teacher, "frechet")) for size in sizes
    ]
    distances, gaps = [Series("teacher", teacher, 0, dashed=True)], []
    for number, steps in enumerate(STEPS, 1):
        having = [size for size in sizes if steps in size.students]
        name = f"student, {step_count(steps)}"
        rows = [(size, size.students[steps]) for size in having]
        points = [Point(size.parameters, row["frechet"], interval(row, "frechet")) for size, row in rows]
        relative = [Point(size.parameters, 100 * (size.ratio(steps) - 1), _gap_bounds(size, steps)) for size in having]
        if having:
            distances.append(Series(name, points, number))
            gaps.append(Series(name, relative, number))
    axis = "parameters"
    return [
        Plot("distance over size", axis, "Fréchet distance", distances, {}, format_operations, "{:.3g}".format),
        Plot(
            "relative gap to the teacher",
            axis,
            "distance above the teacher's (%)",
            gaps,
            {"no gap": 0.0},
            format_operations,
            "{:.3g}".format,
            log_y=False,
        ),
    ]


def _gap_bounds(size: Size, steps: int) -> tuple[float, float] | None:
    bounds = ratio_bounds(size.students[steps], size.teacher)
    return None if bounds is None else (100 * (bounds[0] - 1), 100 * (bounds[1] - 1))

"""The rows of an evaluation as pages and comparisons read them: names, intervals, numbers in words."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from scm_media.display import printable
from scm_media.pipeline.card import format_operations

Row = Mapping[str, Any]
Metrics = Mapping[str, Any]
STUDENT = "consistency"
LARGEST = 10**300
"""Whole numbers of JSON files are below it, so that a float holds them."""


def _plain(value: float) -> str:
    return f"{value:.4g}"


def _fraction(value: float) -> str:
    return f"{value:.3f}"


def _milliseconds(value: float) -> str:
    return f"{1000 * value:.4g}"


COLUMNS: Mapping[str, tuple[str, Callable[[float], str]]] = {
    "operations_per_sample": ("operations", format_operations),
    "frechet": ("Fréchet", _plain),
    "kernel": ("kernel", _plain),
    "precision": ("precision", _fraction),
    "recall": ("recall", _fraction),
    "density": ("density", _fraction),
    "coverage": ("coverage", _fraction),
    "accuracy": ("accuracy", _fraction),
    "seconds_per_sample": ("ms a sample", _milliseconds),
}
"""Key of a row to the heading of its column and how its numbers are shown."""


def is_student(row: Row) -> bool:
    """Returns whether a row is of the student."""
    return row["sampler"] == STUDENT


def of_first_scale(metrics: Metrics) -> list[Row]:
    """Returns the rows at the guidance scale of the first row: rows of two scales do not compare."""
    rows = metrics["rows"]
    return [row for row in rows if row.get("guidance") == rows[0].get("guidance")]


def students(metrics: Metrics) -> dict[int, Row]:
    """Returns the student's rows by their number of steps; of several guidance scales, those of the first one."""
    return {row["steps"]: row for row in of_first_scale(metrics) if is_student(row)}


def compared_teacher(metrics: Metrics) -> Row | None:
    """Returns the teacher's row that students are compared with; None without one.

    It is that of the model's own solver and steps, or the one with the most evaluations where figures do not name it.
    Of several guidance scales it is one of the first, as the students' rows are.
    """
    teachers = [row for row in of_first_scale(metrics) if not is_student(row)]
    named = metrics.get("teacher") or {}
    own = [row for row in teachers if all(row[key] == named.get(key) for key in ("sampler", "steps"))]
    return max(own or teachers, key=lambda row: row["evaluations"], default=None)


def step_count(num: int) -> str:
    """Returns a number of steps in words: ``1 step``, ``2 steps``."""
    return f"{num} step{'' if num == 1 else 's'}"


def row_name(row: Row) -> str:
    """Returns a row's sampler, steps and guidance scale in words, safe to show."""
    steps = step_count(row["steps"])
    name = f"student, {steps}" if is_student(row) else f"teacher ({printable(row['sampler'])}), {steps}"
    return name if row.get("guidance") is None else f"{name}, guidance {row['guidance']:g}"


def interval(row: Row, key: str) -> tuple[float, float] | None:
    """Returns the interval of one of a row's figures, low and high; None where it was not measured."""
    found = (row.get("intervals") or {}).get(key)
    return None if found is None else (found[0], found[1])


def figure_text(row: Row, key: str) -> str:
    """Returns one of a row's figures with its interval: ``0.651 [0.64, 0.66]``, or a dash where there is none."""
    show = COLUMNS[key][1]
    return with_interval(row.get(key), interval(row, key), show)


def with_interval(value: float | None, bounds: Sequence[float] | None, show: Callable[[float], str] = _plain) -> str:
    """Returns a number with its interval behind it; a dash for None."""
    if value is None:
        return "–"
    return show(value) if bounds is None else f"{show(value)} [{show(bounds[0])}, {show(bounds[1])}]"


def over_teacher(student: Row, teacher: Row, key: str) -> float | None:
    """Returns a student's figure over the teacher's; None where either is missing or the teacher's is 0."""
    if student.get(key) is None or not teacher.get(key):
        return None
    return student[key] / teacher[key]


def ratio_bounds(student: Row, teacher: Row, key: str = "frechet") -> tuple[float, float] | None:
    """Returns the least and the most that the ratio of two figures is with each within its own interval.

    It is wider than an interval of the ratio itself would be. None without both intervals, or where the teacher's
    reaches zero.
    """
    own, other = interval(student, key), interval(teacher, key)
    if own is None or other is None or other[0] <= 0:
        return None
    return own[0] / other[1], own[1] / other[0]


def is_number(value: Any) -> bool:
    """Returns whether a value of a JSON file is a number that a float holds, and finite."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) < LARGEST if isinstance(value, int) else math.isfinite(value)

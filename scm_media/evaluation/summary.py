"""Says in words what an evaluation found: two steps against the teacher, the targets, and what to be wary of."""

from __future__ import annotations

from scm_media.display import printable
from scm_media.evaluation.frechet import too_few
from scm_media.evaluation.row_text import (
    Metrics,
    Row,
    compared_teacher,
    is_student,
    of_first_scale,
    over_teacher,
    ratio_bounds,
    step_count,
    students,
)

WITHIN, FASTER = 1.10, 50.0
"""The targets of two steps: at most this ratio of distances, and at least this one of seconds."""


def headline(metrics: Metrics) -> list[str]:
    """Returns sentences about two steps: ratio of distances, of operations and of seconds, and which targets they miss.

    Without a teacher, or without two steps, the one sentence says so.
    """
    student, teacher = students(metrics).get(2), compared_teacher(metrics)
    name = printable(metrics["model"])
    if student is None:
        return [f"{name}: two steps were not measured (--rows teacher 1 2)."]
    if teacher is None:
        return [f"{name}: two steps have a Fréchet distance of {student['frechet']:.4g}; no teacher was measured."]
    return [
        _reached(name, student, teacher),
        *_costs(student, teacher),
        *_targets(metrics, student, teacher),
        *_rival(metrics),
    ]


def _reached(name: str, student: Row, teacher: Row) -> str:
    solver = f"{printable(teacher['sampler'])}, {step_count(teacher['steps'])}"
    distances = f"{student['frechet']:.4g} against {teacher['frechet']:.4g}; {solver}"
    ratio = over_teacher(student, teacher, "frechet")
    if ratio is None:
        return f"{name}: the Fréchet distance of two steps beside the teacher's: {distances}."
    bounds = ratio_bounds(student, teacher)
    spread = "" if bounds is None else f", from {bounds[0]:.3g} to {bounds[1]:.3g} within both intervals"
    return f"{name}: in two steps the Fréchet distance is {ratio:.3g} × the teacher's{spread} ({distances})."


def _costs(student: Row, teacher: Row) -> list[str]:
    """Returns a sentence about the operations and the seconds that two steps take of the teacher's."""
    parts = []
    for key, what in (("operations_per_sample", "operations"), ("seconds_per_sample", "seconds")):
        if ratio := over_teacher(student, teacher, key):
            parts.append(_share(ratio, what))
    evaluations = f"{student['evaluations']} evaluations instead of {teacher['evaluations']}"
    return [f"They take {' and '.join(parts)} ({evaluations})." if parts else f"They take {evaluations}."]


def _share(ratio: float, what: str) -> str:
    return f"1/{1 / ratio:.3g} of the teacher's {what}" if ratio < 1 else f"{ratio:.3g} times the teacher's {what}"


def _targets(metrics: Metrics, student: Row, teacher: Row) -> list[str]:
    """Returns a sentence about each target; a distance reaches it only over a teacher that passed its threshold."""
    found = []
    passed = (metrics.get("teacher_threshold") or {}).get("passed") is True
    ratio, seconds = over_teacher(student, teacher, "frechet"), over_teacher(student, teacher, "seconds_per_sample")
    if ratio is not None:
        bounds = ratio_bounds(student, teacher)
        reached = f"{100 * abs(ratio - 1):.3g} % {'above' if ratio > 1 else 'below'} it"
        if ratio > WITHIN:
            found.append(f"Missed: a distance within 10 % of the teacher's ({reached}).")
        elif not passed:
            found.append(
                f"Not shown: a distance within 10 % of the teacher's ({reached}), because the teacher is not known to "
                "be close to the data itself."
            )
        elif bounds is not None and bounds[1] > WITHIN:
            found.append(
                f"Reached, but not beyond doubt: a distance within 10 % of the teacher's ({reached}; the intervals "
                f"allow a ratio of {bounds[1]:.3g})."
            )
        else:
            found.append(f"Reached: a distance within 10 % of the teacher's ({reached}).")
    if seconds:
        state = "Reached" if 1 / seconds >= FASTER else "Missed"
        found.append(f"{state}: 50 × fewer seconds than the teacher ({1 / seconds:.3g} ×).")
    return found


def _rival(metrics: Metrics) -> list[str]:
    """Returns a sentence about the cheapest row of the teacher that is no worse than two steps, where another is."""
    student = students(metrics)[2]
    teachers = [row for row in of_first_scale(metrics) if not is_student(row)]
    if len(teachers) < 2:
        return []
    rows = [row for row in teachers if row["frechet"] <= student["frechet"]]
    if not rows:
        return ["None of the teacher's rows reaches the distance of two steps."]
    row = min(rows, key=lambda row: row["evaluations"])
    times = over_teacher(row, student, "operations_per_sample") or row["evaluations"] / student["evaluations"]
    unit = "operations" if row.get("operations_per_sample") and student.get("operations_per_sample") else "evaluations"
    return [
        f"The teacher's cheapest row that is no worse than two steps is {printable(row['sampler'])} with "
        f"{step_count(row['steps'])} (distance {row['frechet']:.4g}), at {times:.3g} times their {unit}."
    ]


def few_samples(metrics: Metrics) -> list[str]:
    """Returns a remark for each side that is too small for its covariance, in the features of either network."""
    counts = {"samples": metrics["num_samples"], "reference samples": metrics.get("num_reference")}
    networks = {"": metrics["features"]["dimension"]}
    if (second := metrics.get("second_features")) is not None:
        networks[f" of {printable(second['name'])}"] = second["dimension"]
    return [
        f"only {num} {side} for {dimension} feature dimensions{of}: the Fréchet distance says little; use more than "
        f"{dimension}, better 5,000"
        for of, dimension in networks.items()
        for side, num in counts.items()
        if num is not None and too_few(dimension, num)
    ]


def weak_points(metrics: Metrics) -> list[str]:
    """Returns why distances and ratios say little: few samples, and a teacher that is itself far from the data."""
    found = few_samples(metrics)
    threshold = metrics.get("teacher_threshold") or {}
    if (over := threshold.get("frechet_over_held_out")) is not None and threshold.get("passed") is not True:
        state = "was not compared with its threshold" if threshold.get("passed") is None else "missed its threshold"
        found.append(
            f"the teacher {state}: its distance is {over:.3g} × that of held-out data (at most 10 × of 10,000 "
            "samples); a teacher that is far from the data is easily matched, so ratios over it prove little"
        )
    return found


def cautions(metrics: Metrics) -> list[str]:
    """Returns what makes figures say less: weak points, held-out data of another number of samples, missing parts."""
    found = weak_points(metrics)
    floor = metrics.get("floor") or {}
    if floor.get("num") not in (None, metrics["num_samples"]):
        found.append(
            f"held-out data are {printable(floor['num'])} samples and rows are of {metrics['num_samples']}: distances "
            "of fewer samples are larger, so the floor does not bound the rows"
        )
    return [*found, *(printable(remark) for remark in metrics.get("remarks") or ())]


def agreement(metrics: Metrics) -> str | None:
    """Returns in words how far both networks rank the rows alike; None where that was not measured."""
    tau = metrics.get("ranking_agreement")
    if tau is None:
        return None
    words = "the same order" if tau == 1 else "mostly the same order" if tau >= 0.6 else "partly another order"
    words = words if tau > 0 else "no common order"
    return f"Both networks rank the rows in {words}: Kendall's τ = {tau:.2f} (1: the same, −1: reversed)."

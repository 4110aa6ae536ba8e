"""The plots of one or several evaluations: distance over compute, over seconds, and in a second network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from scm_media.display import printable
from scm_media.evaluation.plots import Plot, Point, Series
from scm_media.evaluation.row_text import STUDENT, Metrics, Row, interval
from scm_media.pipeline.card import format_operations

Named = Mapping[str, Metrics]
"""The metrics of models by the names that are shown; one model may have the name ""."""

AXES: Mapping[str, tuple[str, Callable[[float], str]]] = {
    "operations_per_sample": ("operations a sample (FLOP)", format_operations),
    "evaluations": ("evaluations a sample", "{:g}".format),
    "seconds_per_sample": ("seconds a sample", "{:.3g}".format),
}
"""Key of a row to the label of the horizontal axis and the text of its ticks."""
WHAT = {"operations_per_sample": "compute", "evaluations": "evaluations", "seconds_per_sample": "seconds"}


def cost_key(named: Named) -> str:
    """Returns what rows are plotted over: operations where each row has them, evaluations otherwise."""
    rows = [row for metrics in named.values() for row in metrics["rows"]]
    return "operations_per_sample" if all(row.get("operations_per_sample") for row in rows) else "evaluations"


def distance_plot(named: Named, key: str) -> Plot | None:
    """Returns the Fréchet distance over one of the axes; None where no row has it. Levels are drawn of one model."""
    levels = _levels(next(iter(named.values()))) if len(named) == 1 else {}
    return _plot(
        f"distance over {WHAT[key]} (numbers: steps)", _distance_label(named, "frechet"), named, key, _own_point, levels
    )


def second_plot(named: Named, key: str) -> Plot | None:
    """Returns the same in the second network's features; None without them, or where models differ in the network."""
    networks = {str((metrics.get("second_features") or {}).get("name")) for metrics in named.values()}
    if len(networks) != 1 or networks == {"None"}:
        return None
    label = f"Fréchet distance ({printable(networks.pop())})"
    levels = _levels(next(iter(named.values())), second=True) if len(named) == 1 else {}
    return _plot(f"second network: distance over {WHAT[key]}", label, named, key, _second_point, levels)


def _plot(
    title: str,
    y_label: str,
    named: Named,
    key: str,
    point: Callable[[Row, str], Point | None],
    levels: Mapping[str, float],
) -> Plot | None:
    series = [
        each
        for number, (name, metrics) in enumerate(named.items())
        for each in _series(name, metrics, key, point, number if len(named) > 1 else None)
    ]
    x_label, show = AXES[key]
    return Plot(title, x_label, y_label, series, levels, show, "{:.3g}".format) if series else None


def _series(
    name: str, metrics: Metrics, key: str, point: Callable[[Row, str], Point | None], group: int | None
) -> list[Series]:
    """Returns a series for each sampler and guidance scale of a model; group: its colour, None for one each."""
    found: dict[tuple[str, float | None], list[Point]] = {}
    for row in metrics["rows"]:
        points = found.setdefault((row["sampler"], row.get("guidance")), [])
        if row.get(key) and (made := point(row, key)) is not None:
            told = group is None or (row["sampler"] == STUDENT and row["steps"] <= 2)  # all would cover each other
            points.append(made if told else replace(made, label=""))
    kept = {kind: points for kind, points in found.items() if points}
    return [
        Series(_series_name(name, *kind), points, number if group is None else group, kind[0] != STUDENT)
        for number, (kind, points) in enumerate(kept.items())
    ]


def _series_name(name: str, sampler: str, guidance: float | None) -> str:
    words = "student" if sampler == STUDENT else f"teacher, {sampler}"
    words = words if guidance is None else f"{words}, guidance {guidance:g}"
    return f"{name}: {words}" if name else words


def _own_point(row: Row, key: str) -> Point:
    return Point(row[key], row["frechet"], interval(row, "frechet"), str(row["steps"]))


def _second_point(row: Row, key: str) -> Point | None:
    second = row.get("second")
    if second is None:
        return None
    bounds: Sequence[Any] | None = second.get("interval")
    return Point(row[key], second["frechet"], None if bounds is None else (bounds[0], bounds[1]), str(row["steps"]))


def _levels(metrics: Metrics, second: bool = False) -> dict[str, float]:
    """Returns the heights of the floor (held-out data) and the ceiling (reconstructions) by what they are.

    second: in the features of the second network. A level of another number of samples than the rows' says so.
    """
    levels = {}
    for name, key, known in (
        ("held-out data", "floor", metrics.get("frechet_held_out")),
        ("reconstructions", "ceiling", None),
    ):
        end = metrics.get(key) or {}
        height = (end.get("second") or {}).get("frechet") if second else end.get("frechet", known)
        num = end.get("num", metrics["num_samples"])
        if height is not None:
            levels[name if num == metrics["num_samples"] else f"{name} (n = {num})"] = height
    return levels


def _distance_label(named: Named, key: str) -> str:
    numbers = sorted({metrics["num_samples"] for metrics in named.values()})
    return f"Fréchet distance, n = {', '.join(map(str, numbers))}"

"""Several models beside each other: their rows in one table, their curves in one plot, one page."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from scm_media import weights
from scm_media.display import printable
from scm_media.evaluation import page_parts as parts
from scm_media.evaluation.curve_page import write_picture
from scm_media.evaluation.curve_plots import cost_key, distance_plot, second_plot
from scm_media.evaluation.kept_figures import Measurement, find_differences
from scm_media.evaluation.plots import draw_svg
from scm_media.evaluation.row_text import COLUMNS, Row, compared_teacher, figure_text, over_teacher, row_name, students
from scm_media.evaluation.scaling import Size, Trend, describe_trend, find_trends, size_plots
from scm_media.evaluation.summary import weak_points
from scm_media.pipeline.card import format_operations, markdown_text

PRINTED = ("operations_per_sample", "frechet", "precision", "recall", "accuracy", "seconds_per_sample")
"""The figures that a terminal has room for; the page has all."""

Table = tuple[list[str], list[list[str]]]
"""Headings, and the cells of each row."""


def compare(measurements: Sequence[Measurement], sizes: Sequence[Size] = ()) -> dict[str, Any]:
    """Returns what ``compare --json`` prints: the chosen rows of each model, why they may not compare, and trends.

    sizes: the models with their parameters, for the trends of ``--size``.
    """
    parameters = {size.name: size for size in sizes}
    models = []
    for each in measurements:
        own = parameters.get(each.name)
        counted = {} if own is None else {"student": own.parameters, "teacher": own.teacher_parameters}
        rows = [{**row, "over_teacher": _ratio(each, row)} for row in chosen_rows(each)]
        figures = {key: each.metrics.get(key) for key in ("num_samples", "num_reference", "features", "dtype")}
        found = {"name": each.name, "source": each.source, **figures, "rows": rows}
        models.append({**found, "parameters": counted} if counted else found)
    return {
        "models": models,
        "notes": notes(measurements),
        "trends": [_trend(trend) for trend in find_trends(sizes)],
    }


def _trend(trend: Trend) -> dict[str, Any]:
    return {
        "steps": trend.steps,
        "slope": trend.slope,
        "margin": trend.margin,
        "narrows": trend.narrows,
        "text": describe_trend(trend),
    }


def chosen_rows(measured: Measurement) -> list[Row]:
    """Returns a model's rows of 1 and 2 steps, the student's of least distance where it is another, and the teacher's.

    A model without rows of 1 and 2 steps has the student's best row alone.
    """
    own, teacher = students(measured.metrics), compared_teacher(measured.metrics)
    chosen = {steps: row for steps, row in own.items() if steps in (1, 2)}
    if own:
        best = min(own, key=lambda steps: own[steps]["frechet"])
        chosen.setdefault(best, own[best])
    return [*(chosen[steps] for steps in sorted(chosen)), *([] if teacher is None else [teacher])]


def _ratio(measured: Measurement, row: Row) -> float | None:
    teacher = compared_teacher(measured.metrics)
    return None if teacher is None else over_teacher(row, teacher, "frechet")


def notes(measurements: Sequence[Measurement]) -> list[str]:
    """Returns why figures may not compare, why some say little, and what is missing from some of them."""
    found = find_differences(measurements)
    for each in measurements:
        remarks = [printable(remark) for remark in each.metrics.get("remarks") or ()]
        found += [f"{each.name}: {text}" for text in (*weak_points(each.metrics), *remarks)]
    lacking = [
        each.name for each in measurements if not all(row.get("operations_per_sample") for row in each.metrics["rows"])
    ]
    if lacking:
        found.append(
            f"{', '.join(lacking)}: figures without operations, so that plots are over evaluations; scm-media evaluate "
            "MODEL --curve counts them"
        )
    return found


def comparison_table(
    measurements: Sequence[Measurement], sizes: Sequence[Size] = (), columns: Collection[str] = tuple(COLUMNS)
) -> Table:
    """Returns the rows of all models in one table; columns that no row has are left out."""
    pairs = [(each, row) for each in measurements for row in chosen_rows(each)]
    keys = [key for key in columns if any(row.get(key) is not None for _, row in pairs)]
    second = any(row.get("second") for _, row in pairs)
    parameters = {size.name: size.parameters for size in sizes}
    heads = ["model", *(["parameters"] if sizes else []), "sampler", "evaluations"]
    heads += [*(COLUMNS[key][0] for key in keys), "over teacher", *(["Fréchet, second network"] if second else [])]
    lines = []
    for each, row in pairs:
        ratio, other = _ratio(each, row), row.get("second")
        cells = [each.name, *([format_operations(parameters[each.name])] if sizes else []), row_name(row)]
        cells += [str(row["evaluations"]), *(figure_text(row, key) for key in keys)]
        cells += ["–" if ratio is None else f"{ratio:.3f}"]
        cells += [("–" if other is None else f"{other['frechet']:.4g}")] if second else []
        lines.append(cells)
    return heads, lines


def comparison_text(measurements: Sequence[Measurement], sizes: Sequence[Size] = ()) -> str:
    """Returns the table as Markdown, with the notes and the trends below it."""
    heads, rows = comparison_table(measurements, sizes, PRINTED)
    lines = [f"| {' | '.join(heads)} |", f"|---|{'---:|' * (len(heads) - 1)}"]
    foreign = [head in ("model", "sampler") for head in heads]
    for row in rows:
        cells = [markdown_text(cell) if named else cell for cell, named in zip(row, foreign, strict=True)]
        lines.append(f"| {' | '.join(cells)} |")
    told = [*notes(measurements), *map(describe_trend, find_trends(sizes))]
    return "\n".join([*lines, *([""] if told else []), *(f"- {text}" for text in told)])


def write_comparison(
    measurements: Sequence[Measurement], path: str | Path, sizes: Sequence[Size] = (), command: str | None = None
) -> None:
    """Writes a page of several models, and its plots as a PNG of the same name beside it."""
    path = Path(path)
    named = {each.name: each.metrics for each in measurements}
    cost = cost_key(named)
    found = [distance_plot(named, cost), distance_plot(named, "seconds_per_sample"), second_plot(named, cost)]
    plots, scaling = [plot for plot in found if plot is not None], size_plots(sizes) if sizes else []
    drawings = [draw_svg(plot, f"plot{number}") for number, plot in enumerate([*plots, *scaling])]
    heads, rows = comparison_table(measurements, sizes)
    trends = [describe_trend(trend) for trend in find_trends(sizes)]
    body = [
        *parts.section("What does not compare", parts.bullets(notes(measurements), "note")),
        *parts.section("Distance over compute", parts.plots(drawings[: len(plots)])),
        *parts.section("Size", parts.bullets(trends), parts.plots(drawings[len(plots) :])),
        *parts.section("Figures", parts.table("figures of all models", heads, rows)),
        *(parts.section("The command", f"<pre>{parts.escape(command)}</pre>") if command is not None else []),
    ]
    write_picture([*plots, *scaling], path.with_suffix(".png"))
    weights.write_whole(path, parts.document(f"{len(measurements)} models compared", body).encode())

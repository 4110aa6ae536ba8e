"""The page of ``evaluate --curve``: one file with the finding in words, plots, tables, and samples side by side."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from scm_media import weights
from scm_media.display import printable
from scm_media.evaluation import page_parts as parts
from scm_media.evaluation.curve_plots import cost_key, distance_plot, second_plot
from scm_media.evaluation.plots import Plot, draw_picture, draw_svg
from scm_media.evaluation.report import MEMORIZATION_SHEET
from scm_media.evaluation.row_text import (
    COLUMNS,
    Metrics,
    compared_teacher,
    figure_text,
    over_teacher,
    row_name,
    with_interval,
)
from scm_media.evaluation.side_by_side import SampleRow, data_uri
from scm_media.evaluation.summary import agreement, cautions, headline
from scm_media.pipeline.card import format_operations, memorization_report
from scm_media.reading import read_bytes

LIMIT = 12_000_000
"""Bytes of a page, so that it can be sent by mail; samples beyond it are left out."""
LARGEST_SHEET = 3_000_000
"""Bytes of a picture of nearest samples that a page holds itself."""


def write_curve_page(
    metrics: Metrics,
    path: str | Path,
    samples: Sequence[SampleRow] = (),
    command: str | None = None,
    limit: int = LIMIT,
) -> None:
    """Writes the page of an evaluation, which holds all it shows, and its plots as a PNG beside it.

    The picture has the page's name with ``curve`` for ``report``, or ``-curve`` behind it, once. Figures that were not
    measured are left out. samples: of several samplers from the same noise. command: the one that made the page.
    limit: bytes of the page; samples that do not fit are left out, and the page says so.
    """
    path = Path(path)
    plots = curve_plots(metrics)
    stem = path.stem.removesuffix("-curve")
    stem = stem.replace("report", "curve", 1) if "report" in stem else f"{stem}-curve"
    if plots:
        write_picture(plots, path.with_name(f"{stem}.png"))
    sheet = path.with_name(MEMORIZATION_SHEET)
    page = curve_page(metrics, plots, samples, command, sheet if sheet.is_file() else None, limit)
    weights.write_whole(path, page.encode())


def write_picture(plots: Sequence[Plot], path: Path) -> None:
    """Writes plots as one PNG."""
    content = io.BytesIO()
    draw_picture(plots).save(content, format="PNG")
    weights.write_whole(path, content.getvalue())


def curve_plots(metrics: Metrics) -> list[Plot]:
    """Returns the plots of a model: distance over compute and over seconds, and both in the second network."""
    named = {"": metrics}
    cost = cost_key(named)
    found = [distance_plot(named, cost), distance_plot(named, "seconds_per_sample"), second_plot(named, cost)]
    return [plot for plot in found if plot is not None]


def curve_page(
    metrics: Metrics,
    plots: Sequence[Plot],
    samples: Sequence[SampleRow] = (),
    command: str | None = None,
    sheet: Path | None = None,
    limit: int = LIMIT,
) -> str:
    """Returns the page as HTML; sheet: the picture of samples and the training samples nearest to them."""
    title = f"Evaluation of {printable(metrics['model'])}"
    before = [*map(_lead, headline(metrics)), *_cautions(metrics)]
    before += parts.section("Distance over compute", parts.plots(_drawings(plots)), _operations(metrics))
    after = [*_figures(metrics), *_second(metrics), *_statistics(metrics), *_memorization(metrics, sheet)]
    if command is not None:
        after += parts.section("The command", f"<pre>{parts.escape(command)}</pre>")
    room = limit - len(parts.document(title, [*before, *after]).encode()) - 1_000
    shown = parts.sample_table(samples, room)
    side_by_side = parts.section("Samples from the same noise", shown)
    return parts.document(title, [*before, *side_by_side, *after])


def _lead(text: str) -> str:
    return parts.paragraph(text, "lead")


def _cautions(metrics: Metrics) -> list[str]:
    found = cautions(metrics)
    return parts.section("To be wary of", parts.bullets(found, "note"))


def _drawings(plots: Sequence[Plot]) -> list[str]:
    return [draw_svg(plot, f"plot{number}") for number, plot in enumerate(plots)]


def _operations(metrics: Metrics) -> str:
    """Returns a sentence about the operations of one evaluation of each network."""
    found = metrics.get("operations") or {}
    listed = [f"{name} {format_operations(value)}" for name, value in found.items() if value is not None]
    text = f"Floating-point operations (FLOP) of one evaluation, a sample: {', '.join(listed)}."
    return parts.paragraph(text) if listed else ""


def _ends(metrics: Metrics) -> dict[str, Any]:
    """Returns the figures of held-out data and of reconstructions, where they were measured, by what they are."""
    ends = {"held-out data": metrics.get("floor"), "reconstructions": metrics.get("ceiling")}
    return {f"{name}, {end.get('num', '–')}": end for name, end in ends.items() if end}


def _figures(metrics: Metrics) -> list[str]:
    """Returns the table of all rows, with held-out data and reconstructions below them."""
    ends = _ends(metrics)
    rows = [*metrics["rows"], *ends.values()]
    keys = [key for key in COLUMNS if any(row.get(key) is not None for row in rows)]
    heads = ["sampler", "evaluations", *(COLUMNS[key][0] for key in keys)]
    lines = [
        [row_name(row), str(row["evaluations"]), *(figure_text(row, key) for key in keys)] for row in metrics["rows"]
    ]
    lines += [[name, "–", *(figure_text(end, key) for key in keys)] for name, end in ends.items()]
    features = metrics["features"]
    told = (
        f"{metrics['num_samples']} samples, {features['dimension']}-dimensional features: "
        f"{printable(features['name'])}. Intervals stand in brackets."
    )
    return parts.section("All figures", parts.table("all figures", heads, lines), parts.paragraph(told))


def _second(metrics: Metrics) -> list[str]:
    """Returns the distances in the second network, and how far both networks agree."""
    named = [*((row_name(row), row) for row in metrics["rows"]), *_ends(metrics).items()]
    best = compared_teacher(metrics) or {}
    teacher, scale = best.get("second") or {}, best.get("guidance")
    name = printable((metrics.get("second_features") or {}).get("name", "the second network"))
    lines = []
    for who, row in named:
        if second := row.get("second"):
            ratio = over_teacher(second, teacher, "frechet") if row.get("guidance") in (None, scale) else None
            shown = with_interval(second["frechet"], second.get("interval"))
            lines.append([who, figure_text(row, "frechet"), shown, "–" if ratio is None else f"{ratio:.3f}"])
    if not lines:
        return []
    said = agreement(metrics)
    return parts.section(
        "In a second network",
        parts.paragraph(said) if said else "",
        parts.table(
            "distances in a second network", ["sampler", "Fréchet", f"Fréchet, {name}", "over the teacher's"], lines
        ),
    )


def _statistics(metrics: Metrics) -> list[str]:
    """Returns the mean of each statistic by row beside held-out data's, with the distance of their distributions."""
    real: dict[str, Any] = metrics.get("statistics") or {}
    if not real:
        return []
    heads = ["", *(f"{name}, {each['unit']}" if each.get("unit") else name for name, each in real.items())]
    known = any(each.get("mean") is not None for each in real.values())
    lines = []
    for who, row in [*_ends(metrics).items(), *((row_name(row), row) for row in metrics["rows"])]:
        if own := row.get("statistics"):
            lines.append([who, *(" ".join(_statistic(own.get(name))) for name in real)])
    return parts.section(
        "Statistics of samples",
        parts.table("statistics of samples", heads, lines),
        parts.paragraph(
            "Means; the distance from the distribution in held-out data stands in parentheses. Held-out data have that "
            "of one half from the other."
            if known
            else "Means; held-out data were not measured."
        ),
    )


def _statistic(found: Any) -> Iterator[str]:
    yield _mean(None if found is None else found.get("mean"))
    if found is not None and found.get("distance") is not None:
        yield f"({found['distance']:.3g})"


def _mean(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def _memorization(metrics: Metrics, sheet: Path | None) -> list[str]:
    found = metrics.get("memorization")
    if found is None:
        return []
    first, *lines = memorization_report(found).replace("**", "").split("\n")
    picture, content = "", None if sheet is None else _read_sheet(sheet)
    if content is not None:
        address, said = data_uri("image/png", content), "samples beside the training samples nearest to them"
        picture = f'<p class="wide"><img src="{address}" alt="{said}"></p>'
    items = [line.removeprefix("- ") for line in lines]
    return parts.section("Memorization", parts.paragraph(first), parts.bullets(items), picture)


def _read_sheet(sheet: Path) -> bytes | None:
    """Returns the picture's content; None where it is too large, or no picture or a link, in a folder of strangers."""
    if sheet.is_symlink() or sheet.stat().st_size > LARGEST_SHEET:
        return None
    content = read_bytes(sheet, LARGEST_SHEET)
    return content if content.startswith(b"\x89PNG\r\n\x1a\n") else None

"""Plots of series with error bars: as SVG that takes the page's colours, and several in one picture."""

from __future__ import annotations

import html
import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from scm_media.display import printable
from scm_media.drawing import make_figure, plot_style, render

WIDTH, HEIGHT, LEGEND_LINE = 460, 330, 17
"""Pixels of a plot without its legend, and of a line of the legend."""

INK = "#010203"
"""The colour that becomes the colour of the page's text."""

COLOURS = ("#d1622b", "#2f7fd0", "#3a9a5b", "#a04bb5", "#b8860b", "#c2385f", "#1d9aa3", "#7a6ff0")
"""Colours of groups, which are seen on white and on black."""

ON_PAGE: Mapping[str, Any] = {
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
    **dict.fromkeys(("axes.facecolor", "figure.facecolor", "savefig.facecolor"), "none"),
}
SMALLEST = 1e-6
"""Where numbers that are zero or below stand on a logarithmic axis."""


@dataclass(frozen=True)
class Point:
    """A point with its interval along y, and the word beside it."""

    x: float
    y: float
    bounds: tuple[float, float] | None = None
    label: str = ""


@dataclass(frozen=True)
class Series:
    """Points that a line joins. group: the number of its colour. dashed: draws a dashed line with squares."""

    name: str
    points: Sequence[Point]
    group: int = 0
    dashed: bool = False


@dataclass(frozen=True)
class Plot:
    """Series in one pair of axes, whose horizontal axis is logarithmic.

    levels: name to height of horizontal lines. x_format, y_format: the text of a tick. log_y: the vertical axis is
    logarithmic too.
    """

    title: str
    x_label: str
    y_label: str
    series: Sequence[Series]
    levels: Mapping[str, float] = field(default_factory=dict)
    x_format: Callable[[float], str] = "{:g}".format
    y_format: Callable[[float], str] = "{:g}".format
    log_y: bool = True

    @property
    def height(self) -> int:
        """Returns its height in pixels, with a line of the legend for two series."""
        return HEIGHT + LEGEND_LINE * math.ceil((len(self.series) + len(self.levels)) / 2)


def draw_svg(plot: Plot, name: str) -> str:
    """Returns a plot as an ``<svg>`` element for a page; name: a word that keeps its ids apart from other plots'.

    Text and axes have the colour of the text around them, so that it is read on dark pages too.
    """
    with plot_style(ON_PAGE):
        figure = make_figure(WIDTH, plot.height)
        figure.set_layout_engine("constrained")
        _draw(figure, plot)
        content = io.StringIO()
        figure.savefig(content, format="svg", metadata={"Date": None})
    drawing = content.getvalue()
    drawing = drawing[drawing.index("<svg") :].replace(INK, "currentColor")
    drawing = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", drawing)
    return drawing.replace("<svg ", f'<svg role="img" aria-label="{html.escape(describe(plot))}" ', 1)


def draw_picture(plots: Sequence[Plot], columns: int = 2) -> Image.Image:
    """Returns plots in one picture on white, row by row."""
    columns = min(columns, len(plots))
    lines = [plots[first : first + columns] for first in range(0, len(plots), columns)]
    heights = [max(plot.height for plot in line) for line in lines]
    page = Image.new("RGB", (2 * WIDTH * columns, 2 * sum(heights)), (255, 255, 255))
    with plot_style():
        for number, line in enumerate(lines):
            for column, plot in enumerate(line):
                figure = make_figure(WIDTH, plot.height)
                figure.set_dpi(2 * figure.dpi)  # for screens of many pixels
                figure.set_layout_engine("constrained")
                _draw(figure, plot)
                page.paste(render(figure), (2 * WIDTH * column, 2 * sum(heights[:number])))
    return page


def describe(plot: Plot) -> str:
    """Returns a plot's title and points in words, for those who do not see it."""
    parts = [
        f"{printable(each.name)}: "
        + ", ".join(
            f"{plot.y_format(point.y)} at {plot.x_format(point.x)}{f' ({point.label})' if point.label else ''}"
            for point in each.points
        )
        for each in plot.series
    ]
    levels = [f"{printable(name)}: {plot.y_format(value)}" for name, value in plot.levels.items()]
    return f"{plot.title}. {'; '.join([*parts, *levels])}"


def _draw(figure: Any, plot: Plot) -> None:
    axes = figure.add_subplot(xscale="log", yscale="log" if plot.log_y else "linear", xlabel=plot.x_label)
    axes.set_ylabel(plot.y_label)
    axes.set_title(plot.title, fontsize="medium")
    if near := _limits(_places(plot)):
        axes.set_xlim(near)
    if plot.log_y and (near := _limits(_heights(plot))):
        axes.set_ylim(near)
    drawn = {_legend_text(each.name): _draw_series(axes, each, plot.log_y) for each in plot.series}
    for number, (name, value) in enumerate(plot.levels.items()):
        height = max(value, SMALLEST) if plot.log_y else value
        line = axes.axhline(height, color="#888888", linestyle=(":", "-.")[number % 2], linewidth=1.2)
        drawn[_legend_text(f"{name} {plot.y_format(value)}")] = line
    axes.margins(0.09)
    axes.set_xlim(axes.get_xlim())  # with other ticks single points would get others
    axes.set_ylim(axes.get_ylim())
    _set_ticks(axes.xaxis, axes.get_xlim(), plot.x_format)
    if plot.log_y:
        _set_ticks(axes.yaxis, axes.get_ylim(), plot.y_format)
    else:
        axes.yaxis.set_major_formatter(lambda value, _: plot.y_format(value))
    axes.grid(color="#888888", alpha=0.25, linewidth=0.5)
    figure.legend(drawn.values(), drawn.keys(), loc="outside lower center", ncols=2, frameon=False)


def _places(plot: Plot) -> list[float]:
    return [point.x for series in plot.series for point in series.points]


def _heights(plot: Plot) -> list[float]:
    """Returns all heights of a logarithmic axis: of points, of the ends of their intervals, and of levels."""
    points = [point for series in plot.series for point in series.points]
    found = [height for point in points for height in (point.y, *(point.bounds or ()))]
    return [max(height, SMALLEST) for height in (*found, *plot.levels.values())]


def _limits(values: Sequence[float]) -> tuple[float, float] | None:
    """Returns limits of a logarithmic axis around values that are too near each other for ticks; None for others."""
    low, high = min(values), max(values)
    return None if high > 1.02 * low else (low / 1.5, high * 1.5)


def _legend_text(name: str) -> str:
    """Returns a name as a legend shows it: one that begins with an underscore would be left out."""
    return f" {printable(name)}" if name.startswith("_") else printable(name)


def _draw_series(axes: Any, series: Series, log_y: bool) -> Any:
    """Draws points, their intervals and the line between them, and returns what the legend shows."""
    points = sorted(series.points, key=lambda point: point.x)
    heights = [max(point.y, SMALLEST) if log_y else point.y for point in points]
    errors: list[list[float]] = [[], []]
    for point, height in zip(points, heights, strict=True):
        low, high = point.bounds or (height, height)
        errors[0].append(max(height - (max(low, SMALLEST) if log_y else low), 0))
        errors[1].append(max(high - height, 0))
    colour = COLOURS[series.group % len(COLOURS)]
    drawn = axes.errorbar(
        [point.x for point in points],
        heights,
        yerr=errors if any(point.bounds for point in points) else None,
        color=colour,
        linestyle="--" if series.dashed else "-",
        marker="s" if series.dashed else "o",
        markersize=3.5,
        linewidth=1.2,
        capsize=2,
    )
    for point, height in zip(points, heights, strict=True):
        offset = (4, 3) if series.dashed else (4, -9)  # beside the interval, where no line of a neighbour is
        place: dict[str, Any] = {"textcoords": "offset points", "fontsize": "small", "ha": "left", "color": colour}
        axes.annotate(printable(point.label), (point.x, height), offset, **place)
    return drawn


def _set_ticks(axis: Any, limits: Sequence[float], show: Callable[[float], str]) -> None:
    """Puts ticks on a logarithmic axis: at powers of ten, and between them where there are few."""
    from matplotlib.ticker import AutoLocator, LogLocator, NullLocator

    low, high = limits
    decades = math.log10(high / low)
    parts = (1.0,) if decades > 2.5 else (1.0, 3.0) if decades > 1.2 else (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)
    axis.set_major_locator(LogLocator(subs=parts, numticks=12) if decades > 0.4 else AutoLocator())
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(lambda value, _: show(value))

"""Draws the figures of a stage of a training over its steps: a panel for each kind of figure."""

from __future__ import annotations

import base64
import html
import io
import math
import re
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from scm_media.app.run_progress import Curve, thin
from scm_media.drawing import make_figure, plot_style

FIRST = ("loss", "to_teacher", "deviation", "accuracy", "g_rms", "gradient_norm")
"""These panels come first, in this order; the others are shown when all are asked for."""
HELD_OUT = "held_out/"
BAND = re.compile(r"/t\d[\d.]*-\d[\d.]*$")
MOST_POINTS = 400
PANEL = (340, 190)
"""A panel is so many pixels wide and high."""
LOGARITHMIC = 20
"""A panel's axis is logarithmic if its largest value is more than so many times its smallest."""
_drawing = threading.Lock()
"""Drawing holds this lock, since matplotlib has one style for all threads of the process."""


def group_figures(figures: Mapping[str, Curve], everything: bool = False) -> dict[str, dict[str, Curve]]:
    """Returns panels by name, each with its curves by what tells them apart.

    The loss of the data and ``held_out/loss`` share a panel, as ``to_teacher/1 step`` and ``to_teacher/2 steps`` do.
    everything: keeps all panels, and the means over bands of t; otherwise those of ``FIRST`` alone.
    """
    panels: dict[str, dict[str, Curve]] = {}
    for name, curve in figures.items():
        if BAND.search(name) and not everything:
            continue
        held_out, plain = name.startswith(HELD_OUT), name.removeprefix(HELD_OUT)
        kind, _, which = plain.partition("/")
        if kind not in FIRST and not everything:
            continue
        words = [*(["held-out"] if held_out else []), *([which] if which else [])]
        panels.setdefault(kind, {})[" ".join(words) or "training"] = curve
    order = {name: number for number, name in enumerate(FIRST)}
    return dict(sorted(panels.items(), key=lambda panel: (order.get(panel[0], len(FIRST)), panel[0])))


def draw_panels(panels: Mapping[str, Mapping[str, Curve]]) -> str:
    """Returns all panels as HTML, in as many columns as fit, each an SVG picture in the page itself."""
    pictures = [
        f'<img alt="{html.escape(name)} over steps" src="data:image/svg+xml;base64,{_encode(name, curves)}">'
        for name, curves in panels.items()
    ]
    return f'<div class="panels">{"".join(pictures)}</div>'


def _encode(name: str, curves: Mapping[str, Curve]) -> str:
    """Returns a panel's SVG in base64."""
    content = io.BytesIO()
    with _drawing, plot_style():
        figure = make_figure(*PANEL)
        _draw_panel(figure.add_subplot(), name, curves)
        figure.tight_layout(pad=0.6)
        figure.savefig(content, format="svg", metadata={"Date": None})
    return base64.b64encode(content.getvalue()).decode()


def _draw_panel(axes: Any, name: str, curves: Mapping[str, Curve]) -> None:
    for label, curve in curves.items():
        steps, values = thin(curve, MOST_POINTS)
        axes.plot(steps, values, label=label, linewidth=1.1, marker="o" if len(steps) < 3 else None, markersize=3)
    axes.set_title(name.replace("_", " "), fontsize=8.5, loc="left")
    if _spread([values for _, values in curves.values()]) > LOGARITHMIC:
        axes.set_yscale("log")
    axes.grid(alpha=0.25, linewidth=0.6)
    if set(curves) != {"training"}:
        axes.legend(frameon=False, fontsize=7)


def _spread(columns: Sequence[Sequence[float]]) -> float:
    """Returns the ratio of the largest value to the smallest; 0 where one is not above 0."""
    values = [value for column in columns for value in column if math.isfinite(value)]
    return max(values) / min(values) if values and min(values) > 0 else 0.0

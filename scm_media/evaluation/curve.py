"""The sampling-compute curve: Fréchet distance over network evaluations a clip."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Mapping
from typing import Any

from scm_media.display import printable

WIDTH, HEIGHT, MARGIN = 560, 360, 56
COLOURS = {"consistency": "#c0392b"}
TEACHER_COLOUR = "#2c5f8a"


def curve_svg(metrics: Mapping[str, Any]) -> str:
    """The rows of ``evaluate`` as an SVG drawing, both axes logarithmic, a line for each sampler
    and scale of guidance, the floor dashed."""
    rows, held_out_distance = metrics["rows"], metrics["frechet_held_out"]
    heights = [max(row["frechet"], 1e-6) for row in rows] + ([held_out_distance] if held_out_distance else [])
    x = _axis([row["evaluations"] for row in rows], MARGIN, WIDTH - MARGIN)
    y = _axis(heights, HEIGHT - MARGIN, MARGIN)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" '
        'font-family="sans-serif" font-size="12">',
        f'<text x="{WIDTH / 2}" y="{HEIGHT - 12}" text-anchor="middle">evaluations a clip</text>',
        f'<text x="12" y="20">Fréchet distance, n = {metrics["num_samples"]}</text>',
    ]
    if held_out_distance:
        parts.append(
            f'<line x1="{MARGIN}" x2="{WIDTH - MARGIN}" y1="{y(held_out_distance):.1f}" '
            f'y2="{y(held_out_distance):.1f}" stroke="#777" stroke-dasharray="4 4"/>'
            f'<text x="{MARGIN}" y="{y(held_out_distance) - 5:.1f}" '
            f'fill="#777">held-out data {held_out_distance:.3g}</text>'
        )
    for sampler, guidance in dict.fromkeys(map(_way, rows)):
        colour = COLOURS.get(sampler, TEACHER_COLOUR)
        line = sorted((row for row in rows if _way(row) == (sampler, guidance)), key=lambda row: row["evaluations"])
        name = sampler if guidance is None else f"{sampler}, guidance {guidance:g}"
        places = [(x(row["evaluations"]), y(max(row["frechet"], 1e-6)), row) for row in line]
        points = " ".join(f"{across:.1f},{up:.1f}" for across, up, _ in places)
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}"/>')
        for across, up, row in places:
            caption = f"{row['evaluations']}: {row['frechet']:.3g}"
            parts.append(
                f'<circle cx="{across:.1f}" cy="{up:.1f}" r="3.5" fill="{colour}"/><text x="{across:.1f}" '
                f'y="{up - 8:.1f}" text-anchor="middle" fill="{colour}">{caption}</text>'
            )
        across, up, _ = places[-1]
        parts.append(
            f'<text x="{across + 8:.1f}" y="{up + 16:.1f}" fill="{colour}">{html.escape(printable(name))}</text>'
        )
    return "\n".join([*parts, "</svg>"])


def _way(row: Mapping[str, Any]) -> tuple[str, float | None]:
    return row["sampler"], row.get("guidance")


def _axis(values: list[float], start: float, end: float) -> Callable[[float], float]:
    """A function from values to places between start and end, logarithmic, with room at both ends."""
    low, high = math.log(min(values)) - 0.2, math.log(max(values)) + 0.2
    return lambda value: start + (math.log(value) - low) / (high - low) * (end - start)

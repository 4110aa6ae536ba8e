"""Sheets and plots: pictures in a grid with captions, spectrograms with axes, distances over evaluations."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from scm_media.display import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GAP, LINE, FONT_SIZE = 8, 17, 13
PAPER, INK = (255, 255, 255), (20, 20, 20)
PANEL_WIDTH, OUTLINE_HEIGHT, SPECTROGRAM_HEIGHT = 232, 30, 132
"""Pixels of a sound's panel: its width, the height of its outline and of its spectrogram."""
LEFT, RIGHT, BELOW = 44, 12, 22
"""Pixels of a panel's margins, for the labels of its axes."""
DECIBELS = 80.0
"""Range of a spectrogram's colours."""
DPI = 100
STYLE = {
    "font.size": 7.5,
    "text.parse_math": False,  # a dollar in the name of a sampler is a dollar
    "svg.fonttype": "none",
    "svg.hashsalt": "scm-media",  # the same figures make the same bytes
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def draw_grid(
    pictures: Sequence[Image.Image],
    captions: Sequence[str] = (),
    columns: int | None = None,
    footer: Image.Image | None = None,
) -> Image.Image:
    """Returns a grid of equally large pictures, row by row, each with its caption below it.

    columns: None for a nearly square grid. footer: a picture below the grid. Raises ValueError for no pictures, for
    captions of another number, and for columns below 1.
    """
    num = len(pictures)
    if num == 0:
        raise ValueError("a sheet needs at least 1 sample, got none")
    if captions and len(captions) != num:
        raise ValueError(f"{len(captions)} captions for {num} samples")
    if columns is not None and columns < 1:
        raise ValueError(f"columns of a sheet must be at least 1, got {columns}")
    columns = min(columns or math.ceil(math.sqrt(num)), num)
    font = ImageFont.load_default(FONT_SIZE)
    width, height = pictures[0].size
    texts = [_wrap(caption, width, font) for caption in captions] or [[]] * num
    rows = [texts[first : first + columns] for first in range(0, num, columns)]
    heights = [height + max(map(len, row)) * LINE + GAP for row in rows]
    bottom = GAP + sum(heights)
    footer_height = 0 if footer is None else footer.height + GAP
    page = Image.new("RGB", (columns * (width + GAP) + GAP, bottom + footer_height), PAPER)
    draw = ImageDraw.Draw(page)
    for index, (picture, lines) in enumerate(zip(pictures, texts, strict=True)):
        row, column = divmod(index, columns)
        left, top = GAP + column * (width + GAP), GAP + sum(heights[:row])
        page.paste(picture, (left, top))
        for number, line in enumerate(lines):
            draw.text((left, top + height + 2 + number * LINE), line, fill=INK, font=font)
    if footer is not None:
        page.paste(footer, (GAP, bottom))
    return page


def scale_picture(picture: Image.Image, smallest: int, largest: float = math.inf) -> Image.Image:
    """Returns the picture with a shorter side between ``smallest`` and ``largest`` pixels.

    Smaller pictures are enlarged by a whole factor, pixel by pixel; larger ones are resampled.
    """
    side = min(picture.size)
    if side > largest:
        size = (round(picture.width * largest / side), round(picture.height * largest / side))
        return picture.resize(size, Image.Resampling.BICUBIC)
    factor = max(1, math.ceil(smallest / side))
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)


def _wrap(caption: str, width: int, font: Any) -> list[str]:
    """Returns the caption in lines no wider than ``width`` pixels; a single word that is wider is cut short."""
    lines = []
    for paragraph in caption.split("\n"):
        lines.append("")
        for word in paragraph.split():
            while len(word) > 1 and font.getlength(word) > width:
                word = word.removesuffix("…")[:-1] + "…"
            longer = f"{lines[-1]} {word}".strip()
            if lines[-1] and font.getlength(longer) > width:
                lines.append(word)
            else:
                lines[-1] = longer
    return lines


def draw_spectrograms(
    outlines: np.ndarray, decibels: np.ndarray, seconds: float, ticks: Mapping[str, float]
) -> tuple[list[Image.Image], Image.Image]:
    """Returns a panel for each sound, its outline above its spectrogram, and the legend of all.

    All panels have one scale of colours, which ends at the loudest value of all, and one of amplitudes.
    outlines: lowest and highest value of each column ``(B, 2, W)``. decibels: ``(B, H, W)``, high frequencies first.
    seconds: the sounds' duration. ticks: labels of frequencies to where they are, from 0 (bottom) to 1 (top).
    """
    loudest = float(decibels.max())
    columns = np.linspace(0, seconds, outlines.shape[-1])
    scale: Any = {"cmap": "inferno", "aspect": "auto", "interpolation": "nearest"}
    panels = []
    with plot_style():
        for (low, high), values in zip(outlines, decibels, strict=True):
            width, height = LEFT + PANEL_WIDTH + RIGHT, OUTLINE_HEIGHT + SPECTROGRAM_HEIGHT + BELOW
            figure = make_figure(width, height)
            wave = _add_axes(figure, LEFT, BELOW + SPECTROGRAM_HEIGHT, PANEL_WIDTH, OUTLINE_HEIGHT)
            wave.fill_between(columns, low, high, color="#42588a", linewidth=0.8)
            wave.set(xlim=(0, seconds), ylim=(-1, 1))
            wave.axis("off")
            axes = _add_axes(figure, LEFT, BELOW, PANEL_WIDTH, SPECTROGRAM_HEIGHT)
            axes.imshow(values, vmin=loudest - DECIBELS, vmax=loudest, extent=(0, seconds, 0, 1), **scale)
            axes.set_yticks(list(ticks.values()), list(ticks))
            axes.locator_params(axis="x", nbins=4)
            axes.xaxis.set_major_formatter(lambda value, _: f"{value:g} s")
            panels.append(render(figure))
        figure = make_figure(LEFT + PANEL_WIDTH + RIGHT, 50)
        axes = _add_axes(figure, LEFT, 36, PANEL_WIDTH, 10)
        axes.imshow(np.linspace(0, 1, 256)[None], extent=(-DECIBELS, 0, 0, 1), **scale)
        axes.set(yticks=[], xlabel="dB relative to the loudest value of the sheet")
        return panels, render(figure)


def draw_curve(metrics: Mapping[str, Any]) -> str:
    """Returns Fréchet distances over network evaluations as SVG, from the figures of ``evaluate``.

    Both axes are logarithmic; each sampler and guidance scale is a line, the held-out distance is dashed.
    """
    lines: dict[tuple[str, float | None], list[tuple[int, float]]] = {}
    for row in metrics["rows"]:
        points = lines.setdefault((row["sampler"], row.get("guidance")), [])
        points.append((row["evaluations"], max(row["frechet"], 1e-6)))
    with plot_style():
        figure = make_figure(620, 400)
        axes = figure.add_subplot(xscale="log", yscale="log", xlabel="evaluations a sample")
        axes.set_ylabel(f"Fréchet distance, n = {metrics['num_samples']}")
        for (sampler, guidance), points in lines.items():
            name = sampler if guidance is None else f"{sampler}, guidance {guidance:g}"
            axes.plot(*zip(*sorted(points), strict=True), marker="o", markersize=4, label=printable(name))
            for place in points:
                axes.annotate(f"{place[1]:.3g}", place, (0, 6), textcoords="offset points", ha="center")
        if held_out := metrics["frechet_held_out"]:
            axes.axhline(held_out, color="#777777", linestyle="--", label=f"held-out data {held_out:.3g}")
        evaluations = sorted({number for points in lines.values() for number, _ in points})
        axes.set_xticks(evaluations, map(str, evaluations))
        axes.minorticks_off()
        axes.yaxis.set_major_formatter("{x:g}")
        axes.legend(frameon=False)
        axes.margins(0.08)
        content = io.StringIO()
        figure.savefig(content, format="svg", bbox_inches="tight", metadata={"Date": None})
    return content.getvalue()[content.getvalue().index("<svg") :]


@contextmanager
def plot_style(more: Mapping[str, Any] | None = None) -> Iterator[None]:
    """Draws in this module's own style within it, whatever the user's settings of matplotlib are; more: others."""
    import matplotlib.style

    with matplotlib.style.context(["default", STYLE, dict(more or {})]):
        yield


def make_figure(width: int, height: int) -> Figure:
    """Returns an empty figure of a size in pixels."""
    from matplotlib.figure import Figure

    return Figure((width / DPI, height / DPI), dpi=DPI)


def _add_axes(figure: Figure, left: int, bottom: int, width: int, height: int) -> Any:
    """Returns axes at a place in pixels."""
    across, along = figure.get_size_inches() * DPI
    return figure.add_axes((left / across, bottom / along, width / across, height / along))


def render(figure: Figure) -> Image.Image:
    """Returns a figure as a picture."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")

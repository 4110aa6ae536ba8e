"""This module draws the outline of a sound, or the frames of a clip, over time, for choosing a stretch."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageDraw
from torch import Tensor

from scm_media.app.edits import to_picture
from scm_media.modality import SizeOption

WIDTH, HEIGHT = 960, 180
"""The picture has so many pixels; that of a clip is as high as its frames."""
PAPER, INK, FAINT = (255, 255, 255), (55, 65, 81), (156, 163, 175)
CHOSEN, CHOSEN_INK = (255, 224, 194), (194, 65, 12)
MOST_FRAMES, MARGIN = 8, 10
"""At most so many frames of a clip are shown, with so many pixels above and below them."""


def draw_timeline(sample: Tensor, option: SizeOption, stretch: tuple[float, float] | None) -> Image.Image:
    """Returns a picture of a sample ``(C, *S)`` along the axis of a size option, with a stretch marked in it.

    stretch: start and end in the option's unit; None for none.
    """
    assert option.axis is not None
    length = sample.shape[option.axis] / option.rate
    frames = _fit_frames(sample) if sample.ndim == 4 else None
    height = HEIGHT if frames is None else frames[1] + 2 * MARGIN
    page = Image.new("RGB", (WIDTH, height), PAPER)
    draw = ImageDraw.Draw(page)
    marked = None if stretch is None else tuple(round(_across(value, length)) for value in stretch)
    if marked is not None:
        draw.rectangle((marked[0], 0, marked[1], height), fill=CHOSEN)
    if frames is not None:
        _paste_frames(page, sample, frames)
    else:
        _draw_outline(draw, sample, option.axis, marked)
    if marked is not None:
        for place in marked:
            draw.line((place, 0, place, height), fill=CHOSEN_INK, width=3)
        draw.rectangle((marked[0], height - 5, marked[1], height), fill=CHOSEN_INK)
    return page


def ticks(length: float) -> list[tuple[float, str]]:
    """Returns about five round numbers of an axis from 0 to ``length``, each with its place from 0 to 1."""
    step = _tick(length / 5)
    return [(number * step / length, f"{number * step:g}") for number in range(int(length / step) + 1)] if step else []


def place_in(part: float, length: float) -> float:
    """Returns the place on the axis, from 0 to ``length``, of a part of the picture's width, from 0 to 1."""
    return min(max(part, 0.0), 1.0) * length


def move_end(stretch: tuple[float, float], place: float) -> tuple[float, float]:
    """Returns the stretch with the end that is nearer to a place moved there."""
    start, end = stretch
    return (place, end) if abs(place - start) <= abs(place - end) else (start, place)


def _across(value: float, length: float) -> float:
    return min(max(value / length if length else 0.0, 0.0), 1.0) * (WIDTH - 1)


def _draw_outline(draw: ImageDraw.ImageDraw, sample: Tensor, axis: int, marked: tuple[int, ...] | None) -> None:
    """Draws the lowest and the highest value of each column."""
    values = sample.float().movedim(axis, -1).reshape(-1, sample.shape[axis]).numpy()
    edges = np.linspace(0, values.shape[1], WIDTH + 1).astype(int)
    loudest = max(float(np.abs(values).max()), 1e-4)
    middle = HEIGHT / 2
    draw.line((0, middle, WIDTH, middle), fill=FAINT)
    for column in range(WIDTH):
        part = values[:, edges[column] : max(edges[column] + 1, edges[column + 1])]
        low, high = (float(each) / loudest * (middle - 6) for each in (part.min(), part.max()))
        inside = marked is not None and marked[0] <= column <= marked[1]
        draw.line((column, middle - high, column, middle - low), fill=CHOSEN_INK if inside else INK)


def _fit_frames(clip: Tensor) -> tuple[int, int]:
    """Returns width and height that the frames of a clip are shown with."""
    wide = WIDTH // min(clip.shape[1], MOST_FRAMES)
    factor = min((wide - 2) / clip.shape[-1], (HEIGHT - 2 * MARGIN) / clip.shape[-2])
    return max(1, int(clip.shape[-1] * factor)), max(1, int(clip.shape[-2] * factor))


def _paste_frames(page: Image.Image, clip: Tensor, size: tuple[int, int]) -> None:
    """Pastes frames of a clip ``(C, T, H, W)`` side by side, each in the middle of its time."""
    num = min(clip.shape[1], MOST_FRAMES)
    for number in range(num):
        frame = min(clip.shape[1] - 1, int((number + 0.5) * clip.shape[1] / num))
        picture = to_picture(clip[:, frame]).resize(size, Image.Resampling.BICUBIC)
        page.paste(picture, (int((number + 0.5) * WIDTH / num - size[0] / 2), MARGIN))


def _tick(rough: float) -> float:
    """Returns 1, 2 or 5 times a power of ten, no less than a rough distance."""
    if rough <= 0:
        return 0.0
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * each for each in (1, 2, 5, 10) if power * each >= rough)

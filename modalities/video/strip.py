"""Many clips on one sheet: a film strip each."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from modalities.video.frames import to_bytes

FRAMES = 8
"""Of a strip: the first, the last and those evenly between; a shorter clip shows all."""
SMALLEST, LARGEST = 64, 160
"""Pixels of a frame's shorter side on the sheet: smaller ones are enlarged by a whole factor, larger ones shrunk."""
BORDER, BETWEEN, GAP, LINE, FONT_SIZE = 9, 2, 10, 17, 13
PAPER, INK, FILM, HOLE = (255, 255, 255), (20, 20, 20), (28, 28, 30), (214, 214, 210)


def strips(samples: Tensor, captions: Sequence[str] = (), columns: int | None = None) -> Image.Image:
    """A film strip for each of samples ``(B, C, T, H, W)``, its caption below; columns: strips side by side (None: 1).

    Raises ValueError for no clips, captions of another number, and columns below 1.
    """
    num = len(samples)
    if num == 0:
        raise ValueError("a sheet needs at least one clip")
    if captions and len(captions) != num:
        raise ValueError(f"{len(captions)} captions for {num} clips")
    if columns is not None and columns < 1:
        raise ValueError(f"columns of a sheet must be at least 1, got {columns}")
    columns = min(columns or 1, num)
    font = ImageFont.load_default(FONT_SIZE)
    pictures = [_strip(sample) for sample in samples]
    width, height = pictures[0].size
    texts = [_fitted(caption, width, font) for caption in captions]
    below = LINE if any(texts) else 0
    rows = math.ceil(num / columns)
    page = Image.new("RGB", (columns * (width + GAP) + GAP, rows * (height + below + GAP) + GAP), PAPER)
    draw = ImageDraw.Draw(page)
    for number, picture in enumerate(pictures):
        row, column = divmod(number, columns)
        left, top = GAP + column * (width + GAP), GAP + row * (height + below + GAP)
        page.paste(picture, (left, top))
        if texts:
            draw.text((left, top + height + 1), texts[number], fill=INK, font=font)
    return page


def chosen(num: int) -> list[int]:
    """Which of a clip's frames a strip shows."""
    return torch.linspace(0, num - 1, min(num, FRAMES)).round().long().tolist()


def _strip(sample: Tensor) -> Image.Image:
    frames = [_sized(pixels) for pixels in to_bytes(sample[:, chosen(sample.shape[1])])]
    width, height = frames[0].size
    film = Image.new("RGB", (len(frames) * (width + BETWEEN) + BETWEEN, height + 2 * BORDER), FILM)
    draw = ImageDraw.Draw(film)
    for left in range(4, film.width - 5, 12):
        for top in (2, film.height - 7):
            draw.rectangle((left, top, left + 5, top + 4), fill=HOLE)
    for place, frame in enumerate(frames):
        film.paste(frame, (BETWEEN + place * (width + BETWEEN), BORDER))
    return film


def _sized(pixels: np.ndarray) -> Image.Image:
    picture = Image.fromarray(pixels)
    side = min(picture.size)
    if side < SMALLEST:
        factor = math.ceil(SMALLEST / side)
        return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    if side > LARGEST:
        scale = LARGEST / side
        size = (round(picture.width * scale), round(picture.height * scale))
        return picture.resize(size, Image.Resampling.BICUBIC)
    return picture


def _fitted(caption: str, width: int, font: ImageFont.ImageFont | ImageFont.FreeTypeFont) -> str:
    """A caption in one line, cut short where it is wider than its strip."""
    line = " ".join(caption.split())
    while len(line) > 1 and font.getlength(line) > width:
        line = line.removesuffix("…")[:-1] + "…"
    return line

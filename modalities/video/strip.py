"""A clip as a film strip, for sheets."""

from __future__ import annotations

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from modalities.video.frames import to_frames
from scm_media.drawing import scale_picture

NUM_FRAMES = 8
"""A strip shows the first frame, the last and those evenly between; of a shorter clip it shows all."""
SMALLEST, LARGEST = 64, 160
"""Bounds of a frame's shorter side on the sheet, in pixels."""
BORDER, BETWEEN = 9, 2
FILM, HOLE = (28, 28, 30), (214, 214, 210)


def draw_strip(sample: Tensor) -> Image.Image:
    """Returns frames of a clip ``(C, T, H, W)`` in [-1, 1], side by side on a film."""
    indices = torch.linspace(0, sample.shape[1] - 1, min(sample.shape[1], NUM_FRAMES)).round().long()
    frames = [scale_picture(Image.fromarray(pixels), SMALLEST, LARGEST) for pixels in to_frames(sample[:, indices])]
    width, height = frames[0].size
    film = Image.new("RGB", (len(frames) * (width + BETWEEN) + BETWEEN, height + 2 * BORDER), FILM)
    draw = ImageDraw.Draw(film)
    for left in range(4, film.width - 5, 12):
        for top in (2, film.height - 7):
            draw.rectangle((left, top, left + 5, top + 4), fill=HOLE)
    for index, frame in enumerate(frames):
        film.paste(frame, (BETWEEN + index * (width + BETWEEN), BORDER))
    return film

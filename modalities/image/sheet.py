"""Many pictures on one sheet, with captions."""

from __future__ import annotations

import math
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

_SMALLEST_SIDE = 96
_FONT_SIZE = 13
_LINE = 17
_GAP = 8
_PAPER, _INK = (255, 255, 255), (20, 20, 20)


def _wrap(caption: str, width: int, font: ImageFont.ImageFont | ImageFont.FreeTypeFont) -> list[str]:
    """The caption in lines no wider than ``width`` pixels; a single word that is wider is cut short."""
    lines: list[str] = []
    for paragraph in caption.split("\n"):
        line = ""
        for word in paragraph.split():
            while len(word) > 1 and font.getlength(word) > width:
                word = word.removesuffix("…")[:-1] + "…" if len(word) > 2 else word[:1]
            longer = f"{line} {word}".strip()
            if line and font.getlength(longer) > width:
                lines.append(line)
                longer = word
            line = longer
        lines.append(line)
    return lines


def sheet(pictures: Sequence[Image.Image], captions: Sequence[str] = (), columns: int | None = None) -> Image.Image:
    """A grid of equally large pictures, row by row, each with its caption below.

    Small pictures are enlarged by a whole factor, pixel by pixel, so that their captions can be read. Without
    ``columns`` the grid is near-square.
    """
    if not pictures:
        raise ValueError("a sheet needs at least one picture")
    if captions and len(captions) != len(pictures):
        raise ValueError(f"{len(captions)} captions for {len(pictures)} pictures")
    if columns is not None and columns < 1:
        raise ValueError(f"columns of a sheet must be at least 1, got {columns}")
    columns = min(columns or math.ceil(math.sqrt(len(pictures))), len(pictures))
    num_rows = math.ceil(len(pictures) / columns)
    factor = max(1, math.ceil(_SMALLEST_SIDE / min(pictures[0].size)))
    width, height = (side * factor for side in pictures[0].size)
    font = ImageFont.load_default(_FONT_SIZE)
    texts = [_wrap(caption, width, font) for caption in captions]
    below = max(map(len, texts), default=0) * _LINE
    page = Image.new("RGB", (columns * (width + _GAP) + _GAP, num_rows * (height + below + _GAP) + _GAP), _PAPER)
    draw = ImageDraw.Draw(page)
    for number, picture in enumerate(pictures):
        row, column = divmod(number, columns)
        left, top = _GAP + column * (width + _GAP), _GAP + row * (height + below + _GAP)
        page.paste(picture.resize((width, height), Image.Resampling.NEAREST), (left, top))
        for line_number, line in enumerate(texts[number] if texts else ()):
            draw.text((left, top + height + 2 + line_number * _LINE), line, fill=_INK, font=font)
    return page

"""Decodes PNG files that Pillow alone gets wrong: transparent colours of 2, 4 and 16 bits, large texts."""

from __future__ import annotations

from typing import IO

import numpy as np
from PIL import Image

SIGNATURE = b"\x89PNG\r\n\x1a\n"
NEEDED = (b"IHDR", b"PLTE", b"tRNS", b"eXIf", b"IDAT", b"IEND")
"""Chunks that pixels and the orientation need."""
GREY_DEPTHS = {"L;2": 2, "L;4": 4, "L": 8}
"""Bits of a pixel by Pillow's name of the layout in the file."""


def load(picture: Image.Image, file: IO[bytes]) -> Image.Image:
    """Returns an opened PNG with its pixels decoded and its transparent colour in the pixels' units.

    file: the one that the picture was opened from.
    """
    layout, key = str(picture.tile[0][3]) if picture.tile else "", picture.info.get("transparency")
    if layout in GREY_DEPTHS and isinstance(key, int):
        # The key counts the levels of the file, of which Pillow makes 256.
        most = (1 << GREY_DEPTHS[layout]) - 1
        picture.info["transparency"] = (key & most) * 255 // most
    picture.load()
    if layout == "RGB;16B" and isinstance(key, tuple):
        return _make_key_transparent(picture, file, key)
    return picture


def _make_key_transparent(picture: Image.Image, file: IO[bytes], key: tuple[int, ...]) -> Image.Image:
    """Returns a picture of 16 bits a channel, whose upper bytes are given, with the key's pixels transparent."""
    file.seek(0)
    lower = Image.open(file)
    lower.tile = [tile._replace(args="RGB;16L") for tile in lower.tile]  # the other byte of each value
    values = np.asarray(picture).astype(np.uint16) << 8 | np.asarray(lower)
    opacity = Image.fromarray(np.where((values == key).all(-1), 0, 255).astype(np.uint8))
    del picture.info["transparency"]
    picture.putalpha(opacity)
    return picture


def without_metadata(content: bytes) -> bytes:
    """Returns the file with only those chunks that its pixels need; texts can be too large to be unpacked."""
    kept, position = [SIGNATURE], len(SIGNATURE)
    while position + 12 <= len(content):
        end = position + 12 + int.from_bytes(content[position : position + 4], "big")
        if content[position + 4 : position + 8] in NEEDED:
            kept.append(content[position:end])
        position = end
    return b"".join(kept)

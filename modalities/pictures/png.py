"""PNG files where Pillow alone does not give the pixels: transparent colours of 2, 4 and 16 bits, large texts."""

from __future__ import annotations

from typing import IO

import numpy as np
from PIL import Image

SIGNATURE = b"\x89PNG\r\n\x1a\n"
NEEDED = (b"IHDR", b"PLTE", b"tRNS", b"eXIf", b"IDAT", b"IEND")
"""Chunks that hold pixels, and how the picture was held."""
GREY_DEPTHS = {"L;2": 2, "L;4": 4, "L": 8}
"""Pillow's name of how pixels lie in the file, to the bits of each."""


def load(picture: Image.Image, file: IO[bytes]) -> Image.Image:
    """Returns an opened PNG with its pixels decoded and its transparent colour in the pixels' units.

    file: what the picture was opened from.
    """
    layout, key = str(picture.tile[0][3]) if picture.tile else "", picture.info.get("transparency")
    if layout in GREY_DEPTHS and isinstance(key, int):
        # The key counts the levels of the file, of which Pillow makes 256.
        most = (1 << GREY_DEPTHS[layout]) - 1
        picture.info["transparency"] = (key & most) * 255 // most
    picture.load()
    if layout == "RGB;16B" and isinstance(key, tuple):
        return _keyed(picture, file, key)
    return picture


def _keyed(picture: Image.Image, file: IO[bytes], key: tuple[int, ...]) -> Image.Image:
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
    """Returns the file with those chunks alone that its pixels need; texts can be too large to be unpacked."""
    kept, place = [SIGNATURE], len(SIGNATURE)
    while place + 12 <= len(content):
        end = place + 12 + int.from_bytes(content[place : place + 4], "big")
        if content[place + 4 : place + 8] in NEEDED:
            kept.append(content[place:end])
        place = end
    return b"".join(kept)

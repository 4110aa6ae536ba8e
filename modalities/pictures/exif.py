"""Reads the orientation of a picture from its EXIF block, and nothing else of the block."""

from __future__ import annotations

import struct
from typing import Any

from PIL import Image

ORIENTATION = 0x0112
"""The entry of the orientation (EXIF 2.3, 4.6.4)."""
SHORT = 3
PREFIX = b"Exif\0\0"
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""The transposition that brings a picture of each orientation upright; from 5 on it swaps width and height."""


def orientation_of(picture: Any) -> int:
    """Returns the EXIF orientation, 1 to 8, of a picture (PIL); 1 if there is none that can be read."""
    block = picture.info.get("exif")
    if isinstance(block, bytes) and (found := orientation_in(block)) is not None:
        return found
    try:
        value = picture.getexif().get(ORIENTATION, 1)
    except Exception:  # damaged EXIF raises errors of any type, and the pixels are good without it
        return 1
    return value if value in range(1, 9) else 1


def orientation_in(block: bytes) -> int | None:
    """Returns the orientation, 1 to 8, of the first directory of an EXIF block; None if it has none.

    Other entries are skipped. Source: TIFF 6.0, section 2.
    """
    block = block.removeprefix(PREFIX)
    order = {b"II": "<", b"MM": ">"}.get(block[:2])
    try:
        if order is None:
            return None
        (begin,) = struct.unpack_from(f"{order}I", block, 4)
        (num,) = struct.unpack_from(f"{order}H", block, begin)
        for position in range(begin + 2, begin + 2 + 12 * num, 12):
            tag, kind, _, value = struct.unpack_from(f"{order}HHIH", block, position)
            if tag == ORIENTATION and kind == SHORT and 1 <= value <= 8:
                return value
    except struct.error:  # the directory ends early
        return None
    return None

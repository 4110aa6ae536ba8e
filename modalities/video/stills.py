"""Single pictures as frames, by Pillow: which side is up, what is transparent, and which of them are damaged."""

from __future__ import annotations

import io
import re
import warnings
from pathlib import Path

import numpy as np
from PIL import Image

from modalities.exif import UPRIGHT, orientation_of
from modalities.video.pixels import composed
from scm_media.reading import read_bytes

# Pillow warns of odd metadata on standard error without the file's name. A filter inside each call would not be safe:
# files are read by several threads.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")

MOST_BYTES = 1 << 30
"""How large the file of a frame may be."""
MODES = {1: "L", 3: "RGB"}
LYING = range(5, 9)
"""Orientations that swap width and height."""
PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
DESCRIPTIVE = frozenset({b"tEXt", b"zTXt", b"iTXt", b"iCCP"})
"""Chunks of a PNG without which its pixels are the same."""
MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
"""What ends the coded data of a scan of a JPEG."""
SCAN = b"\xff\xda"
END, FILLED = b"\xff\xd9", b"\x55\xaa" * 128 + b"\xff\xd9"
"""The end of a JPEG, alone and after bits that would be seen if pixels were still to come."""
HOLE = bytes(64)
"""What a JPEG has in place of data that were never written; a flat picture may have them by right."""
TAIL = 16
"""Bytes at the end of coded data without which a picture cannot be whole."""


def size_of(path: Path) -> tuple[int, int]:
    """Returns width and height of a picture as it is shown, from its header; raises whatever Pillow does."""
    content = read_bytes(path, MOST_BYTES)
    try:
        return _size(content)
    except Exception:
        if (bare := _without_text(content)) == content:
            raise
        return _size(bare)


def read_picture(path: Path) -> Image.Image:
    """Returns a whole picture, upright; raises whatever Pillow does, and ValueError for a JPEG with data missing.

    A JPEG that lacks its end marker alone is whole. A PNG whose text is larger than Pillow takes is read without it.
    """
    content = read_bytes(path, MOST_BYTES)
    if content.startswith(JPEG):
        content = _whole_jpeg(content)
    try:
        return _read(content)
    except Exception:
        if (bare := _without_text(content)) == content:
            raise
        return _read(bare)


def _size(content: bytes) -> tuple[int, int]:
    with Image.open(io.BytesIO(content)) as picture:
        width, height = picture.size
        return (height, width) if orientation_of(picture) in LYING else (width, height)


def _read(content: bytes) -> Image.Image:
    with Image.open(io.BytesIO(content)) as picture:
        picture.load()
        if content.startswith(PNG):
            _scale_key(picture, content[24])
        turn = UPRIGHT.get(orientation_of(picture))
        return picture.copy() if turn is None else picture.transpose(turn)


def _scale_key(picture: Image.Image, depth: int) -> None:
    """Brings the colour that a PNG calls transparent to the 8 bits that Pillow brings its pixels to."""
    key = picture.info.get("transparency")
    if picture.mode == "L" and isinstance(key, int) and depth in (2, 4):
        picture.info["transparency"] = key * 255 // ((1 << depth) - 1)
    elif picture.mode == "RGB" and isinstance(key, tuple) and depth == 16:
        picture.info["transparency"] = tuple(value >> 8 for value in key)


def _without_text(content: bytes) -> bytes:
    """Returns a PNG without what only describes it; anything else as it is."""
    if not content.startswith(PNG):
        return content
    kept, at = [PNG], len(PNG)
    while at < len(content):
        end = at + 12 + int.from_bytes(content[at : at + 4], "big")
        if content[at + 4 : at + 8] not in DESCRIPTIVE:
            kept.append(content[at:end])
        at = end
    return b"".join(kept)


def _whole_jpeg(content: bytes) -> bytes:
    """Returns a JPEG with its end marker; ValueError where coded data are missing, which libjpeg would paint grey.

    Coded data that reach exactly to the last pixel are whole: no bits after them change the picture, and without their
    last bytes some do. Only a file that has no end marker, or a hole, is decoded for that.
    """
    start, end = _coded(content)
    if content.startswith(END, end) and HOLE not in content[start:end]:
        return content
    data = content[:end].rstrip(b"\xff")  # half of a marker, or fill bytes before one
    exact = _closed(data) and not _closed(data[:-TAIL].rstrip(b"\xff"))
    if not exact and not _closed(content[:start]):  # a flat picture is the same without any data
        raise ValueError("the file is cut short, or parts of it were never written")
    return data + END


def _coded(content: bytes) -> tuple[int, int]:
    """Returns where the first scan of a JPEG begins, and where the last one ends."""
    start, at = len(content), 2
    while found := MARKER.search(content, at):
        marker = found.start()
        if found.group() == END:
            return start, marker
        at = marker + 2 + int.from_bytes(content[marker + 2 : marker + 4], "big")
        if found.group() == SCAN:
            start = min(start, at)
    return start, len(content)


def _closed(data: bytes) -> bool:
    """Returns whether more bits after the coded data leave the picture as it is."""
    with Image.open(io.BytesIO(data + END)) as one, Image.open(io.BytesIO(data + FILLED)) as other:
        return one.tobytes() == other.tobytes()


class StillFrame:
    """A frame of Pillow's, upright already."""

    def __init__(self, picture: Image.Image) -> None:
        self._picture = picture

    def pixels(self, height: int, width: int, channels: int, background: float) -> np.ndarray:
        """Returns what ``Picture.pixels`` does: bicubic without aliasing, 16 bits brought to 8."""
        picture = self._picture
        if picture.mode.startswith("I"):  # 16-bit grey, which Pillow would clip
            picture = _eight_bits(picture)
        if picture.has_transparency_data:
            picture = Image.fromarray(composed(np.asarray(picture.convert("RGBA")), background))
        picture = picture.convert("RGB" if picture.mode == "CMYK" else MODES[channels]).convert(MODES[channels])
        if picture.size != (width, height):
            picture = picture.resize((width, height), Image.Resampling.BICUBIC)
        return np.asarray(picture).reshape(height, width, channels)


def _eight_bits(picture: Image.Image) -> Image.Image:
    """Returns a picture of 16-bit grey in 8 bits, with an opacity where one level is transparent."""
    values = np.asarray(picture.convert("I"))
    grey = np.round(values / 257).clip(0, 255).astype(np.uint8)
    key = picture.info.get("transparency")
    if not isinstance(key, int):
        return Image.fromarray(grey)
    return Image.fromarray(np.stack([grey, np.where(values == key, 0, 255).astype(np.uint8)], -1), "LA")

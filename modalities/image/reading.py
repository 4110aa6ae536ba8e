"""Picture files of every kind as tensors: modes, transparency, orientation, and the limit of their size."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import IO

import torch
from PIL import Image, ImageOps
from torch import Tensor

MODES = {1: "L", 3: "RGB"}
"""Pillow's mode of pictures of so many channels."""
MOST_PIXELS = 2 * (Image.MAX_IMAGE_PIXELS or 0)
"""Pillow itself refuses a picture of more."""
ORIENTATION, LYING = 0x0112, range(5, 9)
"""The EXIF entry of how a picture was held, and those values of it that swap width and height."""
DECODING_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    struct.error,
    zlib.error,
    OverflowError,
    Image.DecompressionBombError,
)


def decode(file: IO[bytes], source: str, channels: int, background: float, max_pixels: int) -> Tensor:
    """The picture ``(C, H, W)``, float32 in [-1, 1], upright; what is transparent shows the background.

    Raises ValueError, with the source's name, for one that cannot be decoded or has more than max_pixels.
    """
    try:
        with Image.open(file) as picture:
            if picture.width * picture.height > max_pixels:
                raise ValueError(f"{picture.width}×{picture.height} exceeds {max_pixels} pixels (max_pixels)")
            picture.load()
            return _from_picture(ImageOps.exif_transpose(picture), channels, background)
    except DECODING_ERRORS as error:
        reason = str(error).replace(repr(file), "the file")
        raise ValueError(f"{source} cannot be decoded as a picture: {reason}") from error


def _from_picture(picture: Image.Image, channels: int, background: float) -> Tensor:
    if picture.mode.startswith("I"):
        # 16-bit grey: Pillow's own conversion to 8 bits clips instead of scaling.
        values = _pixels(picture.convert("I"), torch.int32)
        grey = values.float() / 32767.5 - 1
        if isinstance(transparent := picture.info.get("transparency"), int):
            grey = torch.where(values == transparent, background, grey)
        return grey.clamp(-1, 1).expand(channels, -1, -1).contiguous()
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        level = round((background + 1) * 127.5)
        ground = Image.new("RGBA", picture.size, (level, level, level, 255))
        picture = Image.alpha_composite(ground, picture)
    mode = MODES[channels]
    if picture.mode == "CMYK" and mode == "L":
        picture = picture.convert("RGB")
    return _pixels(picture.convert(mode), torch.uint8).float() / 127.5 - 1


def upright_size(file: str | Path | IO[bytes]) -> tuple[int, int]:
    """Height and width of a picture as it stands upright, from its header; ValueError where there is none."""
    try:
        with Image.open(file) as picture:
            width, height = picture.size
            lies = picture.getexif().get(ORIENTATION) in LYING
    except DECODING_ERRORS as error:
        raise ValueError(f"{file} cannot be decoded as a picture: {error}") from error
    return (width, height) if lies else (height, width)


def _pixels(picture: Image.Image, dtype: torch.dtype) -> Tensor:
    """The picture's bytes ``(C, H, W)``."""
    flat = torch.frombuffer(bytearray(picture.tobytes()), dtype=dtype)
    return flat.reshape(picture.height, picture.width, -1).permute(2, 0, 1).contiguous()

"""Decodes picture files by Pillow: finds damage, brings them upright, composes transparency, limits their size."""

from __future__ import annotations

import io
import warnings
from typing import IO

from PIL import Image

from modalities.pictures import jpeg, png
from modalities.pictures.exif import UPRIGHT, orientation_of

# Pillow warns of odd metadata on standard error without the file's name. A filter inside each call would not be safe:
# files are read by several threads.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")

MODES = {1: "L", 3: "RGB"}
"""Pillow's mode for each number of channels."""
MAX_PIXELS = 2 * (Image.MAX_IMAGE_PIXELS or 0)
"""Pillow refuses larger pictures."""
LONGEST_SIDE = (1 << 16) - 1
"""Pixels of the longest side that JPEG allows. A picture of millions by one pixel would cost gigabytes."""
JPEGS = ("JPEG", "MPO")
"""Pillow's names of JPEG files that hold one picture, and several."""
WITHOUT_METADATA = {b"\xff\xd8": jpeg.without_metadata, png.SIGNATURE: png.without_metadata}
"""The function that leaves out metadata, by the first bytes of a file."""


def read_picture(file: IO[bytes], max_pixels: int, thorough: bool = False) -> Image.Image:
    """Returns a decoded picture, upright; of an animation the first frame. Damaged metadata do not matter.

    thorough: finds missing details of progressive JPEG files too, by decoding them twice more. Raises ValueError for a
    picture that is damaged or has more than max_pixels, and otherwise whatever Pillow raises.
    """
    try:
        picture = _load(file, max_pixels, thorough)
    except Exception as error:
        if (plain := _strip_metadata(file)) is None:
            raise
        try:
            picture = _load(plain, max_pixels, thorough)
        except ValueError:
            raise
        except Exception:  # its message would be about a copy
            raise error from None
    turn = UPRIGHT.get(orientation_of(picture))
    return picture if turn is None else picture.transpose(turn)


def read_size(file: IO[bytes]) -> tuple[int, int]:
    """Returns height and width of an upright picture, from its header; raises whatever Pillow raises."""
    try:
        picture = Image.open(file)
    except Exception:
        if (plain := _strip_metadata(file)) is None:
            raise
        picture = Image.open(plain)
    width, height = picture.size
    return (width, height) if orientation_of(picture) >= 5 else (height, width)


def flatten_picture(picture: Image.Image, channels: int, background: float) -> Image.Image:
    """Returns a picture of 8 bits as grey or RGB; transparent pixels show the background, a number in [-1, 1]."""
    if picture.has_transparency_data:
        level = round((background + 1) * 127.5)
        ground = Image.new("RGBA", picture.size, (level, level, level, 255))
        picture = Image.alpha_composite(ground, picture.convert("RGBA"))
    return picture.convert("RGB" if picture.mode == "CMYK" else MODES[channels]).convert(MODES[channels])


def _load(file: IO[bytes], max_pixels: int, thorough: bool) -> Image.Image:
    """Returns the picture with its pixels decoded; ValueError for one that is too large or damaged."""
    file.seek(0)
    picture = Image.open(file)
    if picture.width * picture.height > max_pixels:
        raise ValueError(f"{picture.width}×{picture.height} exceeds {max_pixels} pixels (max_pixels)")
    if max(picture.size) > LONGEST_SIDE:
        raise ValueError(f"{picture.width}×{picture.height}: a side may have {LONGEST_SIDE} pixels")
    if picture.format in JPEGS:
        file.seek(0)
        content = jpeg.check_structure(file.read())
        picture = Image.open(io.BytesIO(content))
        picture.load()
        jpeg.check_pixels(content, picture, thorough)
    elif picture.format == "PNG":
        picture = png.load(picture, file)
    else:
        picture.load()
    return picture


def _strip_metadata(file: IO[bytes]) -> IO[bytes] | None:
    """Returns the file without its texts and colour profiles, which can keep Pillow from it; None if it has none."""
    file.seek(0)
    content = file.read(len(png.SIGNATURE))
    for signature, without_metadata in WITHOUT_METADATA.items():
        if content.startswith(signature):
            content += file.read()
            plain = without_metadata(content)
            return io.BytesIO(plain) if len(plain) < len(content) else None
    return None

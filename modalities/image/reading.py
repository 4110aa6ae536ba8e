"""Picture files of every kind as tensors: modes, transparency, orientation, and the limit of their size."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import IO

import torch
from PIL import Image
from torch import Tensor

from modalities.exif import UPRIGHT, orientation_of
from modalities.image import jpeg, png

# Pillow warns of odd metadata on standard error without the file's name. A filter inside each call would not be safe:
# files are read by several threads.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")

MODES = {1: "L", 3: "RGB"}
"""Pillow's mode of pictures of so many channels."""
MOST_PIXELS = 2 * (Image.MAX_IMAGE_PIXELS or 0)
"""Pillow itself refuses a picture of more."""
LONGEST_SIDE = (1 << 16) - 1
"""Pixels of a side, as many as JPEG has room for: a strip of millions by one is no picture, and costs gigabytes."""
JPEGS = ("JPEG", "MPO")
"""Pillow's names of JPEG files that hold one picture, and several."""
WITHOUT_METADATA = {b"\xff\xd8": jpeg.without_metadata, png.SIGNATURE: png.without_metadata}
"""First bytes of a file to the function that leaves out what its pixels do not need."""


def decode(
    file: IO[bytes], source: str, channels: int, background: float, max_pixels: int, thorough: bool = False
) -> Tensor:
    """Returns the picture ``(C, H, W)``, float32 in [-1, 1], upright; what is transparent shows the background.

    thorough: finds missing details of progressive JPEG files too, by decoding them twice more. Raises ValueError, with
    the source's name, for a file that cannot be decoded, is damaged or has more than max_pixels.
    """
    try:
        with _decoded(file, max_pixels, thorough) as picture:
            return _from_picture(_upright(picture), channels, background)
    except Exception as error:  # decoders raise whatever they like, and one bad file must not stop a run
        raise ValueError(f"{source} cannot be decoded as a picture: {_reason(error, file)}") from error


def _decoded(file: IO[bytes], max_pixels: int, thorough: bool) -> Image.Image:
    """Returns the picture with its pixels decoded, whatever its metadata are; raises what is wrong with its pixels."""
    try:
        return _loaded(file, max_pixels, thorough)
    except Exception as error:
        if (plain := _without_metadata(file)) is None:
            raise
        try:
            return _loaded(plain, max_pixels, thorough)
        except ValueError:
            raise
        except Exception:  # what it says is about a copy
            raise error from None


def _loaded(file: IO[bytes], max_pixels: int, thorough: bool) -> Image.Image:
    """Returns the picture with its pixels decoded; ValueError for one that is too large or damaged."""
    file.seek(0)
    picture = Image.open(file)
    if picture.width * picture.height > max_pixels:
        raise ValueError(f"{picture.width}×{picture.height} exceeds {max_pixels} pixels (max_pixels)")
    if max(picture.size) > LONGEST_SIDE:
        raise ValueError(f"{picture.width}×{picture.height}: a side may have {LONGEST_SIDE} pixels")
    if picture.format in JPEGS:
        file.seek(0)
        content = jpeg.checked(file.read())
        picture = Image.open(io.BytesIO(content))
        picture.load()
        jpeg.check_pixels(content, picture, thorough)
    elif picture.format == "PNG":
        picture = png.load(picture, file)
    else:
        picture.load()
    return picture


def _without_metadata(file: IO[bytes]) -> IO[bytes] | None:
    """Returns the file without its texts and colour profiles, which can keep Pillow from it; None where none are."""
    file.seek(0)
    content = file.read(len(png.SIGNATURE))
    for signature, plain in WITHOUT_METADATA.items():
        if content.startswith(signature):
            content += file.read()
            found = plain(content)
            return io.BytesIO(found) if len(found) < len(content) else None
    return None


def _reason(error: Exception, file: object) -> str:
    """Returns in one line what a decoder said, with the kind of error where that is no error of reading."""
    text = " ".join(str(error).replace(repr(file), "").split())
    if isinstance(error, ValueError | OSError | SyntaxError) and text:
        return text
    return f"{type(error).__name__}: {text}".removesuffix(": ")


def _upright(picture: Image.Image) -> Image.Image:
    """Returns a decoded picture as it was held, with no more of its EXIF read than that."""
    method = UPRIGHT.get(orientation_of(picture))
    return picture if method is None else picture.transpose(method)


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
    return _pixels(picture.convert(mode), torch.uint8).float().div_(127.5).sub_(1)


def upright_size(file: str | Path | IO[bytes]) -> tuple[int, int]:
    """Returns height and width of a picture as it stands upright, from its header.

    Raises ValueError, with the file's name, where the header cannot be read.
    """
    source = getattr(file, "name", file)
    try:
        if isinstance(file, str | Path):
            with Path(file).open("rb") as opened:
                return _header_size(opened)
        return _header_size(file)
    except Exception as error:  # as in decode
        raise ValueError(f"{source} cannot be decoded as a picture: {_reason(error, file)}") from error


def _header_size(file: IO[bytes]) -> tuple[int, int]:
    try:
        picture = Image.open(file)
    except Exception:
        if (plain := _without_metadata(file)) is None:
            raise
        picture = Image.open(plain)
    width, height = picture.size
    return (width, height) if orientation_of(picture) >= 5 else (height, width)


def _pixels(picture: Image.Image, dtype: torch.dtype) -> Tensor:
    """Returns the picture's bytes ``(C, H, W)``."""
    flat = torch.frombuffer(bytearray(picture.tobytes()), dtype=dtype)
    return flat.reshape(picture.height, picture.width, -1).permute(2, 0, 1).contiguous()

"""Reads picture files as tensors."""

from __future__ import annotations

from pathlib import Path
from typing import IO

import torch
from PIL import Image
from torch import Tensor

from modalities.pictures.reading import flatten_picture, read_picture, read_size


def decode(
    file: IO[bytes], source: str, channels: int, background: float, max_pixels: int, thorough: bool = False
) -> Tensor:
    """Returns the picture ``(C, H, W)``, float32 in [-1, 1], upright; transparent pixels show the background.

    thorough: see ``read_picture``. Raises ValueError, with the source's name, for a file that cannot be decoded, is
    damaged or has more than max_pixels.
    """
    try:
        with read_picture(file, max_pixels, thorough) as picture:
            return _to_tensor(picture, channels, background)
    except Exception as error:  # decoders raise errors of any type, and one bad file must not stop a run
        raise _decoding_error(source, error, file) from error


def read_upright_size(file: str | Path | IO[bytes]) -> tuple[int, int]:
    """Returns height and width of an upright picture, from its header.

    Raises ValueError, with the file's name, if the header cannot be read.
    """
    try:
        if isinstance(file, str | Path):
            with Path(file).open("rb") as opened:
                return read_size(opened)
        return read_size(file)
    except Exception as error:  # for the same reason as in decode
        raise _decoding_error(str(getattr(file, "name", file)), error, file) from error


def _to_tensor(picture: Image.Image, channels: int, background: float) -> Tensor:
    if picture.mode.startswith("I"):
        # 16-bit grey: Pillow's own conversion to 8 bits clips instead of scaling.
        values = _pixels(picture.convert("I"), torch.int32)
        grey = values.float() / 32767.5 - 1
        if isinstance(transparent := picture.info.get("transparency"), int):
            grey = torch.where(values == transparent, background, grey)
        return grey.clamp(-1, 1).expand(channels, -1, -1).contiguous()
    return _pixels(flatten_picture(picture, channels, background), torch.uint8).float().div_(127.5).sub_(1)


def _pixels(picture: Image.Image, dtype: torch.dtype) -> Tensor:
    """Returns the picture's values ``(C, H, W)``."""
    flat = torch.frombuffer(bytearray(picture.tobytes()), dtype=dtype)
    return flat.reshape(picture.height, picture.width, -1).permute(2, 0, 1).contiguous()


def _decoding_error(source: str, error: Exception, file: object) -> ValueError:
    """Returns an error with the decoder's message in one line, after its type if that is not usual for bad files."""
    text = " ".join(str(error).replace(repr(file), "").split())
    if not (isinstance(error, ValueError | OSError | SyntaxError) and text):
        text = f"{type(error).__name__}: {text}".removesuffix(": ")
    return ValueError(f"{source} cannot be decoded as a picture: {text}")

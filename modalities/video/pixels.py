"""From decoded frames to pixels: resampling, colour, transparency, which side is up."""

from __future__ import annotations

from typing import Any

import av
import numpy as np
from av.video.reformatter import Colorspace, Interpolation
from PIL import Image, ImageOps

EXACT: Any = Interpolation.BICUBIC.value | Interpolation.ACCURATE_RND.value | Interpolation.FULL_CHR_H_INT.value
"""How swscale resamples and changes colours: without the last two it darkens frames by a level or two."""
FORMATS = {1: "gray", 3: "rgb24"}
MODES = {1: "L", 3: "RGB"}
UNTOLD = 2
"""FFmpeg's number (AVCOL_SPC_UNSPECIFIED) of the colour matrix of frames that do not tell theirs."""
HIGH_DEFINITION = 720
"""Lines from which on a video that does not tell its colour matrix is taken for BT.709, below for BT.601."""


class DecodedFrame:
    """A frame of FFmpeg's."""

    def __init__(self, frame: av.VideoFrame, turn: int) -> None:
        """turn: quarters of a turn, counter-clockwise, that bring it upright."""
        self._frame, self._turn = frame, turn

    def pixels(self, height: int, width: int, channels: int, background: float) -> np.ndarray:
        """As ``Picture.pixels``; bicubic, as wide as it must be that nothing aliases, 10 bits brought to 8."""
        frame = _opaque(self._frame, background)
        if self._turn % 2:
            height, width = width, height
        # swscale takes a matrix that is not told for BT.601, players take that of large frames for BT.709.
        untold = frame.colorspace == UNTOLD and frame.height >= HIGH_DEFINITION
        source = Colorspace.ITU709 if untold and not frame.format.is_rgb else None
        found = frame.reformat(width, height, FORMATS[channels], src_colorspace=source, interpolation=EXACT)
        pixels = found.to_ndarray()
        return np.rot90(pixels.reshape(height, width, channels), self._turn)


def _opaque(frame: av.VideoFrame, background: float) -> av.VideoFrame:
    """A frame as it is, or composed on the background where its format has transparency."""
    if not any(component.is_alpha for component in frame.format.components):
        return frame
    return av.VideoFrame.from_ndarray(_composed(frame.to_ndarray(format="rgba"), background), format="rgb24")


def _composed(pixels: np.ndarray, background: float) -> np.ndarray:
    """``(H, W, 3)`` of pixels ``(H, W, 4)``."""
    opacity = pixels[..., 3:].astype(np.float32) / 255
    ground = (background + 1) * 127.5
    return np.round(pixels[..., :3] * opacity + ground * (1 - opacity)).astype(np.uint8)


class StillFrame:
    """A frame of Pillow's, upright already."""

    def __init__(self, picture: Image.Image) -> None:
        self._picture = picture

    def pixels(self, height: int, width: int, channels: int, background: float) -> np.ndarray:
        """As ``Picture.pixels``; bicubic, as wide as it must be that nothing aliases, 16 bits brought to 8."""
        picture = self._picture
        if picture.mode.startswith("I"):  # 16-bit grey, which Pillow would clip
            picture = Image.fromarray(np.round(np.asarray(picture.convert("I")) / 257).clip(0, 255).astype(np.uint8))
        if picture.has_transparency_data:
            picture = Image.fromarray(_composed(np.asarray(picture.convert("RGBA")), background))
        picture = picture.convert("RGB" if picture.mode == "CMYK" else MODES[channels]).convert(MODES[channels])
        if picture.size != (width, height):
            picture = picture.resize((width, height), Image.Resampling.BICUBIC)
        return np.asarray(picture).reshape(height, width, channels)


def upright(picture: Image.Image) -> Image.Image:
    """A picture as its EXIF orientation says that it was held."""
    return ImageOps.exif_transpose(picture)

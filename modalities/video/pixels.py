"""Converts decoded frames to pixels: resampling, colour, transparency, orientation."""

from __future__ import annotations

from typing import Any

import av
import numpy as np
from av.video.reformatter import Colorspace, Interpolation
from PIL import Image

from modalities.pictures.reading import flatten_picture
from modalities.video.display import Orientation

EXACT: Any = Interpolation.BICUBIC.value | Interpolation.ACCURATE_RND.value | Interpolation.FULL_CHR_H_INT.value
"""Flags of swscale: without the last two it darkens frames by a level or two."""
FORMATS = {1: "gray", 3: "rgb24"}
UNSPECIFIED = 2
"""FFmpeg's number (AVCOL_SPC_UNSPECIFIED) of the colour matrix of frames that do not name theirs."""
HIGH_DEFINITION = 720
"""A video of so many lines that does not name its colour matrix counts as BT.709, a lower one as BT.601."""


class DecodedFrame:
    """A frame that FFmpeg has decoded, and its orientation."""

    def __init__(self, frame: av.VideoFrame, orientation: Orientation) -> None:
        self._frame, self._orientation = frame, orientation

    def pixels(self, height: int, width: int, channels: int, background: float) -> np.ndarray:
        """Returns what ``Picture.pixels`` returns: bicubic without aliasing, 10 bits brought to 8."""
        frame = _opaque(self._frame, background)
        if self._orientation.transposed:
            height, width = width, height
        # swscale takes an unspecified matrix for BT.601, players take that of large frames for BT.709.
        unspecified = frame.colorspace == UNSPECIFIED and frame.height >= HIGH_DEFINITION
        source = Colorspace.ITU709 if unspecified and not frame.format.is_rgb else None
        found = frame.reformat(width, height, FORMATS[channels], src_colorspace=source, interpolation=EXACT)
        return self._orientation.apply(found.to_ndarray().reshape(height, width, channels))


def _opaque(frame: av.VideoFrame, background: float) -> av.VideoFrame:
    """Returns a frame, composed on the background if its format has transparency."""
    if not any(component.is_alpha for component in frame.format.components):
        return frame
    picture = Image.fromarray(frame.to_ndarray(format="rgba"))
    return av.VideoFrame.from_image(flatten_picture(picture, 3, background))

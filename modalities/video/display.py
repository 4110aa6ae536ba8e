"""Reads how frames are turned and mirrored when they are shown, from the display matrix of a video."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import av
import numpy as np
from av.sidedata.sidedata import Type

TILT = math.tan(math.radians(1.0))
"""The largest tilt of an axis that counts as straight: one degree, as in FFmpeg."""

UNNAMED = range(max(kind.value for kind in Type) + 1, 64)
"""Kinds of side data, such as EXIF, that FFmpeg may have and PyAV has no name for."""


@dataclass(frozen=True)
class Orientation:
    """One of the eight orientations of a picture: it is transposed first, then flipped.

    flip_rows: upside down. flip_columns: left and right swapped. straight: False where the file asks for another
    angle, such as 45 degrees, which is rounded to the nearest of the eight.
    """

    transposed: bool = False
    flip_rows: bool = False
    flip_columns: bool = False
    straight: bool = True

    def apply(self, pixels: np.ndarray) -> np.ndarray:
        """Returns pixels ``(H, W, C)`` as they are shown, ``(W, H, C)`` where they are transposed."""
        if self.transposed:
            pixels = pixels.swapaxes(0, 1)
        return pixels[:: -1 if self.flip_rows else 1, :: -1 if self.flip_columns else 1]


def orientation_of(frame: Any) -> Orientation:
    """Returns the orientation that a decoded frame's display matrix asks for.

    The matrix brings a point (x, y), y downwards, to (a x + c y, b x + d y); scale and shift are left out, as FFmpeg's
    own players do.
    """
    matrix = next((bytes(data) for data in _side_data(frame) if data.type.name == "DISPLAYMATRIX"), b"")
    if len(matrix) != 36:
        return Orientation()
    a, b, _, c, d, *_ = struct.unpack("=9i", matrix)
    across, along = abs(b) + abs(c), abs(a) + abs(d)
    straight = min(across, along) <= TILT * max(across, along)
    if across > along:
        return Orientation(True, flip_rows=b < 0, flip_columns=c < 0, straight=straight)
    return Orientation(False, flip_rows=d < 0, flip_columns=a < 0, straight=straight)


def _side_data(frame: Any) -> Iterable[Any]:
    """Returns the data beside a frame, of kinds that PyAV knows: it gives none at all where it meets another."""
    try:
        return frame.side_data
    except ValueError:
        graph = av.filter.Graph()
        source = graph.add_buffer(
            width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base
        )
        filters = [graph.add("sidedata", f"mode=delete:type={kind}") for kind in UNNAMED]
        graph.link_nodes(source, *filters, graph.add("buffersink")).configure()
        graph.push(frame)
        return graph.pull().side_data

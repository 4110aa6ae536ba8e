"""Resizes, crops and stacks frames to clips ``(C, T, H, W)``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from modalities.pictures.pixels import covering_size, draw_corner, resize, to_bytes
from modalities.video.footage import File, Picture, wrap_errors


@dataclass(frozen=True)
class Framing:
    """Resamples frames to ``scaled`` (height, width) and crops ``size`` at ``corner``."""

    scaled: tuple[int, int]
    corner: tuple[int, int]
    size: tuple[int, int]

    @classmethod
    def of(cls, height: int, width: int, size: tuple[int, int], generator: torch.Generator | None) -> Framing:
        """Returns how frames of this size are cropped: centrally, or at a corner that the generator draws."""
        scaled = covering_size(height, width, size)
        return cls(scaled, draw_corner(scaled, size, generator), size)

    def pixels(self, picture: Picture, channels: int, background: float) -> np.ndarray:
        """Returns a frame's pixels ``(height, width, channels)``, uint8."""
        (top, left), (height, width) = self.corner, self.size
        return picture.pixels(*self.scaled, channels, background)[top : top + height, left : left + width]

    def apply(self, sample: Tensor) -> Tensor:
        """Returns a sample ``(C, T, H, W)``, resampled and cropped."""
        sample = resize(sample.movedim(1, 0), *self.scaled).movedim(0, 1)
        (top, left), (height, width) = self.corner, self.size
        return sample[..., top : top + height, left : left + width]


def stack_frames(
    file: File, frames: Iterable[tuple[int, Picture]], framing: Framing, channels: int, background: float
) -> Tensor:
    """Returns the clip ``(C, T, H, W)``, float32 in [-1, 1], of a file's frames, each after its number of repetitions.

    Raises VideoError for a frame whose pixels cannot be converted.
    """
    made: list[np.ndarray] = []
    for num, picture in frames:
        with wrap_errors(file, "has frames whose colours cannot be converted"):
            pixels = framing.pixels(picture, channels, background)
        made += [pixels] * num
    return (torch.from_numpy(np.stack(made)).permute(3, 0, 1, 2).float() / 127.5 - 1).contiguous()


def to_frames(sample: Tensor) -> np.ndarray:
    """Returns the frames ``(T, H, W, 3)``, uint8, of a clip ``(C, T, H, W)`` in [-1, 1], rounded and clipped.

    Raises ValueError for a value that is not finite, and for another shape than frames of one or three channels have.
    """
    if sample.ndim != 4 or sample.shape[0] not in (1, 3) or not sample.numel():
        raise ValueError(f"a video is (3, T, H, W) or (1, T, H, W), got {tuple(sample.shape)}")
    return to_bytes(sample).expand(3, -1, -1, -1).permute(1, 2, 3, 0).contiguous().numpy()

"""Frames to clips ``(C, T, H, W)``: brought to a size, cropped, stacked."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from modalities.video.reading import File, Picture, decoding


@dataclass(frozen=True)
class Framing:
    """How frames come to ``size`` (height, width): resampled to ``scaled``, of which the part at ``corner`` is cut."""

    scaled: tuple[int, int]
    corner: tuple[int, int]
    size: tuple[int, int]

    @classmethod
    def of(cls, height: int, width: int, size: tuple[int, int], generator: torch.Generator | None) -> Framing:
        """The shorter side (by the aspect of ``size``) is brought to ``size``; the crop is central, or drawn."""
        scale = max(size[0] / height, size[1] / width)
        scaled = max(size[0], round(height * scale)), max(size[1], round(width * scale))
        room = scaled[0] - size[0], scaled[1] - size[1]
        if generator is None:
            return cls(scaled, (room[0] // 2, room[1] // 2), size)
        top, left = (int(torch.randint(free + 1, (), generator=generator)) for free in room)
        return cls(scaled, (top, left), size)

    def pixels(self, picture: Picture, channels: int, background: float) -> np.ndarray:
        """``(height, width, channels)`` uint8 of a frame."""
        (top, left), (height, width) = self.corner, self.size
        return picture.pixels(*self.scaled, channels, background)[top : top + height, left : left + width]

    def apply(self, sample: Tensor) -> Tensor:
        """A sample ``(C, T, H, W)`` framed: bicubic, as wide as it must be that nothing aliases."""
        if tuple(sample.shape[-2:]) != self.scaled:
            frames = functional.interpolate(sample.movedim(1, 0), self.scaled, mode="bicubic", antialias=True)
            sample = frames.clamp(-1, 1).movedim(0, 1)
        (top, left), (height, width) = self.corner, self.size
        return sample[..., top : top + height, left : left + width]


def stacked(
    file: File, frames: Iterable[tuple[int, Picture]], framing: Framing, channels: int, background: float
) -> Tensor:
    """Returns the clip ``(C, T, H, W)``, float32 in [-1, 1], of a file's frames and how often each is repeated.

    Raises VideoError where a frame cannot be brought to pixels.
    """
    made: list[np.ndarray] = []
    for num, picture in frames:
        with decoding(file, "has frames whose colours cannot be converted"):
            pixels = framing.pixels(picture, channels, background)
        made += [pixels] * num
    return (torch.from_numpy(np.stack(made)).permute(3, 0, 1, 2).float() / 127.5 - 1).contiguous()


def to_bytes(sample: Tensor) -> np.ndarray:
    """A clip ``(C, T, H, W)`` in [-1, 1] as ``(T, H, W, 3)`` uint8, rounded and clipped.

    Raises ValueError where a value is not finite, and for another shape than frames of one or three channels have.
    """
    if sample.ndim != 4 or sample.shape[0] not in (1, 3) or not sample.numel():
        raise ValueError(f"a video is (3, T, H, W) or (1, T, H, W), got {tuple(sample.shape)}")
    if not bool(torch.isfinite(sample).all()):
        raise ValueError("a sample is not finite (NaN or infinity), so that no video can be made of it")
    pixels = ((sample.detach().float().cpu() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return pixels.expand(3, -1, -1, -1).permute(1, 2, 3, 0).contiguous().numpy()

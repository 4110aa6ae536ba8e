"""Pixels of pictures and frames: resampling, crops, grey, bytes."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

_PILLOW_FILTERS = {"lanczos": Image.Resampling.LANCZOS, "box": Image.Resampling.BOX}
FILTERS = ("bicubic", *_PILLOW_FILTERS)
_GREY_WEIGHTS = (0.299, 0.587, 0.114)
"""ITU-R BT.601, section 2.5.1."""


def resize(samples: Tensor, height: int, width: int, by: str = "bicubic") -> Tensor:
    """Returns samples ``(B, C, H, W)`` of this size, resampled without aliasing and clipped to [-1, 1].

    by: one of ``FILTERS``. Pillow resamples by those that torchvision does not have for tensors of every version.
    Raises ValueError if torchvision is not installed.
    """
    if tuple(samples.shape[-2:]) == (height, width):
        return samples
    if by == "bicubic":
        try:
            from torchvision.transforms import v2
        except ImportError as error:
            raise ValueError(f"resizing needs torchvision ({error}): pip install 'scm-media[image]'") from error
        bicubic = v2.InterpolationMode.BICUBIC
        return v2.functional.resize(samples, [height, width], bicubic, antialias=True).clamp(-1, 1)
    planes = [
        torch.from_numpy(np.array(Image.fromarray(plane).resize((width, height), _PILLOW_FILTERS[by])))
        for plane in samples.flatten(0, 1).float().numpy()
    ]
    return torch.stack(planes).reshape(*samples.shape[:2], height, width).clamp(-1, 1)


def covering_size(height: int, width: int, size: tuple[int, int]) -> tuple[int, int]:
    """Returns the smallest height and width, in the picture's aspect, of which ``size`` can be cropped."""
    scale = max(size[0] / height, size[1] / width)
    return max(size[0], round(height * scale)), max(size[1], round(width * scale))


def draw_corner(
    scaled: tuple[int, int], size: tuple[int, int], generator: torch.Generator | None = None
) -> tuple[int, int]:
    """Returns top and left of a crop of ``size``: drawn by the generator, central without one."""
    room = [whole - part for whole, part in zip(scaled, size, strict=True)]
    if generator is None:
        return room[0] // 2, room[1] // 2
    top, left = (int(torch.randint(free + 1, (), generator=generator)) for free in room)
    return top, left


def to_grey(samples: Tensor) -> Tensor:
    """Returns the brightness ``(B, *S)`` of grey or RGB samples ``(B, C, *S)``, in their range.

    Raises ValueError for another number of channels than 1 or 3.
    """
    if samples.shape[1] == 1:
        return samples[:, 0]
    if samples.shape[1] != 3:
        raise ValueError(f"a picture has 1 or 3 channels, got {samples.shape[1]}")
    weights = torch.tensor(_GREY_WEIGHTS, dtype=samples.dtype, device=samples.device)
    return torch.einsum("bc...,c->b...", samples, weights)


def to_bytes(sample: Tensor) -> Tensor:
    """Returns a sample in [-1, 1] as uint8 on the CPU, rounded and clipped; ValueError for one that is not finite."""
    if not bool(torch.isfinite(sample).all()):
        raise ValueError("a sample is not finite (NaN or infinity) and has no pixels")
    return ((sample.detach().float() + 1) * 127.5).round().clamp(0, 255).to("cpu", torch.uint8)

"""How a picture comes to a recipe's shape: resampling that does not alias, and buckets of shapes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

_PILLOW_FILTERS = {"lanczos": Image.Resampling.LANCZOS, "box": Image.Resampling.BOX}
FILTERS = ("bicubic", *_PILLOW_FILTERS)


def resize(samples: Tensor, height: int, width: int, by: str) -> Tensor:
    """Samples ``(B, C, H, W)`` resampled without aliasing, clipped to [-1, 1]; untouched where the size is right."""
    if tuple(samples.shape[-2:]) == (height, width):
        return samples
    if by == "bicubic":
        resized = functional.interpolate(samples, (height, width), mode="bicubic", antialias=True, align_corners=False)
        return resized.clamp(-1, 1)
    planes = [
        torch.from_numpy(np.array(Image.fromarray(plane).resize((width, height), _PILLOW_FILTERS[by])))
        for plane in samples.flatten(0, 1).float().numpy()
    ]
    return torch.stack(planes).reshape(*samples.shape[:2], height, width).clamp(-1, 1)


def checked_buckets(buckets: Sequence[Sequence[int]], size: int, fit: str) -> list[tuple[int, int]]:
    """The shapes as pairs; ValueError for what is no list of shapes within the area."""
    if fit != "crop":
        raise ValueError(f"modality.buckets needs modality.fit=crop, got fit={fit}")
    shapes = [tuple(shape) if isinstance(shape, Sequence) else () for shape in buckets]
    for shape in shapes:
        if len(shape) != 2 or not all(isinstance(side, int) and side >= 1 for side in shape):
            raise ValueError(f"modality.buckets must be a list of [height, width] in pixels, got {list(buckets)}")
        if shape[0] * shape[1] > size * size:
            raise ValueError(f"modality.buckets: {list(shape)} has more pixels than modality.size² ({size}×{size})")
    if not shapes or len(set(shapes)) < len(shapes):
        raise ValueError(f"modality.buckets must name at least one shape, none of them twice; got {list(buckets)}")
    return [(shape[0], shape[1]) for shape in shapes]


def nearest_bucket(height: int, width: int, buckets: Sequence[tuple[int, int]]) -> int:
    """The place of the shape whose aspect is nearest to a picture's, in ratio; of equally near ones the first."""

    def distance(place: int) -> float:
        high, wide = buckets[place]
        return abs(math.log(height * wide / (width * high)))

    return min(range(len(buckets)), key=distance)

"""Buckets: the shapes of which a picture takes the one with the aspect nearest to its own."""

from __future__ import annotations

import math
from collections.abc import Sequence


def check_buckets(buckets: Sequence[Sequence[int]], size: int, fit: str) -> list[tuple[int, int]]:
    """Returns the shapes as pairs; raises ValueError for anything but distinct shapes of at most ``size`` squared."""
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
    """Returns the index of the shape whose aspect is nearest to a picture's, the first of equally near ones."""

    def distance(index: int) -> float:
        high, wide = buckets[index]
        return abs(math.log(height * wide / (width * high)))

    return min(range(len(buckets)), key=distance)

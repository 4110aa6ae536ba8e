"""Joins the given part of a sample to the generated part, and fills what is not given for an autoencoder."""

from __future__ import annotations

import torch
from torch import Tensor


def crossfade(given: Tensor, generated: Tensor, mask: Tensor, length: int, axis: int = -1) -> Tensor:
    """Returns samples ``(B, C, *S)`` that fade from given to generated within ``length`` given positions of a border.

    Given positions further inside are kept exactly. The weights add to one, because both parts are of the same signal
    there. Borders lie along ``axis``, counted from the end; the ends of the sample are none. Raises ValueError for a
    negative length.
    """
    if length < 0:
        raise ValueError(f"a cross-fade has a length of at least 0 positions, got {length}")
    size = mask.shape[axis]
    position = torch.arange(size, device=mask.device).reshape(-1, *[1] * (-axis - 1))
    missing = mask <= 0
    # The nearest missing position on either side; without one, it is further away than the sample is long.
    before = torch.where(missing, position, -size - length).cummax(axis).values
    after = torch.where(missing, position, 2 * size + length).flip(axis).cummin(axis).values.flip(axis)
    distance = torch.minimum(position - before, after - position)
    weight = (distance / (length + 1)).clamp(max=1).to(given.dtype)
    mixed = weight * given + (1 - weight) * generated
    return torch.where(weight >= 1, given, torch.where(missing, generated, mixed))


def fill_missing(sample: Tensor, mask: Tensor, axis: int | None) -> Tensor:
    """Returns samples ``(B, C, *S)`` whose values where mask ``(B, 1, *S)`` is zero disturb the given ones least.

    An autoencoder sees some way beyond the border of the given part. If that part is the same all across ``axis``, it
    is mirrored at its borders; otherwise the mean of the given values of each channel fills the rest.
    """
    if axis is not None:
        line = mask.transpose(axis, -1).reshape(-1, mask.shape[axis])
        if bool((line == line[0]).all()):
            return sample.index_select(axis, _mirror(line[0] > 0).to(sample.device))
    axes = tuple(range(2, sample.ndim))
    mean = (sample * mask).sum(axes, keepdim=True) / mask.sum(axes, keepdim=True).clamp(min=1)
    return torch.where(mask > 0, sample, mean)


def _mirror(given: Tensor) -> Tensor:
    """Returns an index ``(n,)`` for each position: its own where it is given, else its image in the nearer border."""
    source = torch.arange(len(given))
    ends = {stop: stop - begin for begin, stop in find_runs(given)}
    begins = {begin: stop - begin for begin, stop in find_runs(given)}
    for begin, stop in find_runs(~given):
        position = torch.arange(begin, stop)
        images = []
        if begin in ends:
            images.append((position - begin, begin - 1 - _bounce(position - begin + 1, ends[begin])))
        if stop in begins:
            images.append((stop - 1 - position, stop + _bounce(stop - position, begins[stop])))
        if len(images) == 2:
            (to_before, before), (to_after, after) = images
            source[begin:stop] = torch.where(to_before <= to_after, before, after)
        elif images:
            source[begin:stop] = images[0][1]
    return source


def _bounce(distance: Tensor, length: int) -> Tensor:
    """Returns how far inside a stretch of given positions a distance beyond its border lies, back and forth."""
    period = max(1, 2 * (length - 1))
    wave = distance % period
    return torch.minimum(wave, period - wave).clamp(max=length - 1)


def find_runs(flags: Tensor) -> list[tuple[int, int]]:
    """Returns (first, one past the last) of each stretch of true in flags ``(n,)``."""
    edges = torch.nonzero(torch.diff(torch.nn.functional.pad(flags.int(), (1, 1)))).flatten().tolist()
    return list(zip(edges[::2], edges[1::2], strict=True))

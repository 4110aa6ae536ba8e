"""What is to be kept and what was made, joined in sample space; and what an autoencoder sees where nothing is known."""

from __future__ import annotations

import torch
from torch import Tensor


def crossfade(known: Tensor, made: Tensor, mask: Tensor, length: int, axis: int = -1) -> Tensor:
    """Samples ``(B, C, *S)`` that turn from known to made within the last ``length`` known places before a border.

    All known places further inside are kept exactly; the weights of both add to one, since there both are of the same
    signal. Borders are those along ``axis``, counted from the end; the clip's own ends are none. ValueError for a
    negative length.
    """
    if length < 0:
        raise ValueError(f"a cross-fade has a length of at least 0 places, got {length}")
    size = mask.shape[axis]
    place = torch.arange(size, device=mask.device).reshape(-1, *[1] * (-axis - 1))
    unknown = mask <= 0
    # Places from here to the nearest unknown one on either side; further than the clip is long where there is none.
    before = torch.where(unknown, place, -size - length).cummax(axis).values
    after = torch.where(unknown, place, 2 * size + length).flip(axis).cummin(axis).values.flip(axis)
    distance = torch.minimum(place - before, after - place)
    weight = (distance / (length + 1)).clamp(max=1).to(known.dtype)
    return torch.where(weight >= 1, known, torch.where(unknown, made, weight * known + (1 - weight) * made))


def surroundings(sample: Tensor, mask: Tensor, axis: int | None) -> Tensor:
    """Samples ``(B, C, *S)`` as they are where mask ``(B, 1, *S)`` is one, and elsewhere what disturbs that least.

    An autoencoder sees some way beyond the border of what is known. Where all that is known ends at places of one
    ``axis``, it sees it mirrored there; elsewhere the mean of what is known, channel by channel.
    """
    if axis is not None:
        line = mask.transpose(axis, -1).reshape(-1, mask.shape[axis])
        if bool((line == line[0]).all()):
            return sample.index_select(axis, _mirrored(line[0] > 0).to(sample.device))
    axes = tuple(range(2, sample.ndim))
    mean = (sample * mask).sum(axes, keepdim=True) / mask.sum(axes, keepdim=True).clamp(min=1)
    return torch.where(mask > 0, sample, mean)


def _mirrored(known: Tensor) -> Tensor:
    """For each place along an axis ``(n,)`` the known one to look at: itself, or its image in the nearer border."""
    source = torch.arange(len(known))
    ends = {stop: stop - begin for begin, stop in runs(known)}
    begins = {begin: stop - begin for begin, stop in runs(known)}
    for begin, stop in runs(~known):
        place = torch.arange(begin, stop)
        images = []
        if begin in ends:
            images.append((place - begin, begin - 1 - _bounce(place - begin + 1, ends[begin])))
        if stop in begins:
            images.append((stop - 1 - place, stop + _bounce(stop - place, begins[stop])))
        if len(images) == 2:
            (to_before, before), (to_after, after) = images
            source[begin:stop] = torch.where(to_before <= to_after, before, after)
        elif images:
            source[begin:stop] = images[0][1]
    return source


def _bounce(distance: Tensor, length: int) -> Tensor:
    """How far inside a stretch of known places a distance beyond its border is mirrored, back and forth."""
    period = max(1, 2 * (length - 1))
    wave = distance % period
    return torch.minimum(wave, period - wave).clamp(max=length - 1)


def runs(flags: Tensor) -> list[tuple[int, int]]:
    """(first, one past the last) of each stretch of true in flags ``(n,)``."""
    edges = torch.nonzero(torch.diff(torch.nn.functional.pad(flags.int(), (1, 1)))).flatten().tolist()
    return list(zip(edges[::2], edges[1::2], strict=True))

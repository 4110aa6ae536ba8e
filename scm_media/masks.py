"""What is known of a clip before it is made: how a network is told of it, and how training draws it.

A network that knows is given, beside x_t, the known latent and its mask (``Conditioning.concat``), and is trained with
regions drawn at random, so that one network continues, animates and fills. Source: Voleti et al. 2022 (MCVD, arXiv
2205.09853), who mask the past and the future of a clip at random; the channels are those of latent inpainting (Rombach
et al. 2022, arXiv 2112.10752). The loss is taken over the rest alone (Harvey et al. 2022, arXiv 2205.11495).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor


class MaskSampler:
    """Regions of a clip that training gives to the network, drawn from the global random state.

    probability: share of the clips that have one. types: one of ``MASK_TYPES`` a clip, equally often. axis: of the
    latent, counted from the end, that the kinds "start", "end", "both" and "first" are along. fraction: the least and
    the largest part of the clip that is known. Raises ValueError for values out of range and kinds there are not.
    """

    def __init__(
        self,
        probability: float = 0.5,
        types: Sequence[str] = ("start",),
        axis: int = -1,
        fraction: Sequence[float] = (0.1, 0.9),
    ) -> None:
        if not 0 < probability <= 1:
            raise ValueError(f"probability must lie in (0, 1], got {probability}; for none set mask=null")
        if not types or (unknown := [mask_type for mask_type in types if mask_type not in MASK_TYPES]):
            raise ValueError(
                f"types must name some of {', '.join(MASK_TYPES)}; got {', '.join(unknown) if types else 'none'}"
            )
        if axis >= 0:
            raise ValueError(f"axis is counted from the end (-1: the last), got {axis}")
        if len(fraction) != 2 or not 0 < fraction[0] <= fraction[1] < 1:
            raise ValueError(f"fraction must be [least, largest] within (0, 1), got {list(fraction)}")
        self.probability, self.types, self.axis, self.fraction = probability, tuple(types), axis, tuple(fraction)

    def check_rank(self, rank: int) -> None:
        """ValueError where latents of so many axes do not have the one that regions are along."""
        if self.axis < -rank:
            raise ValueError(f"conditioning.mask.axis is {self.axis}, but latents have {rank} axes: -{rank} … -1")

    def draw(self, latent: Tensor) -> Tensor:
        """Masks ``(B, 1, *s)`` for latents ``(B, c, *s)``: one where the latent is given."""
        num, rank = latent.shape[0], latent.ndim - 2
        self.check_rank(rank)
        uniform = torch.rand(num, 3 + rank, device=latent.device)
        least, largest = self.fraction
        fraction, mask_type = least + (largest - least) * uniform[:, 2], (uniform[:, 1] * len(self.types)).long()
        regions = [MASK_TYPES[name](latent, self.axis, fraction, uniform[:, 3:]) for name in self.types]
        masks = torch.stack([region.expand(num, 1, *latent.shape[2:]) for region in regions])
        chosen = masks[mask_type.clamp(max=len(self.types) - 1), torch.arange(num, device=latent.device)]
        return (chosen & _each(uniform[:, 0] < self.probability, latent)).to(latent.dtype)


MaskType = Callable[[Tensor, int, Tensor, Tensor], Tensor]
"""From latents ``(B, c, *s)``, an axis, shares ``(B,)`` and chances ``(B, rank)`` in [0, 1) to masks that broadcast to
``(B, 1, *s)``, true: known."""


def start(latent: Tensor, axis: int, fraction: Tensor, uniform: Tensor) -> Tensor:
    """The start is known, the rest follows."""
    return _place(latent, axis) < _each(_count(latent, axis, fraction), latent)


def end(latent: Tensor, axis: int, fraction: Tensor, uniform: Tensor) -> Tensor:
    """The end is known, what leads to it is not."""
    return _place(latent, axis) >= _each(latent.shape[axis] - _count(latent, axis, fraction), latent)


def both(latent: Tensor, axis: int, fraction: Tensor, uniform: Tensor) -> Tensor:
    """Both ends are known, as much of each as chance has it."""
    mask = _count(latent, axis, fraction)
    before = (mask * uniform[:, 0]).round()
    place, gap = _place(latent, axis), latent.shape[axis] - mask
    return (place < _each(before, latent)) | (place >= _each(before + gap, latent))


def first(latent: Tensor, axis: int, fraction: Tensor, uniform: Tensor) -> Tensor:
    """The first place is known: a frame to be set in motion."""
    return _place(latent, axis) < min(1, latent.shape[axis] - 1)


def box(latent: Tensor, axis: int, fraction: Tensor, uniform: Tensor) -> Tensor:
    """All is known but a box somewhere, of the same share along every axis."""
    rank = latent.ndim - 2
    inside = torch.ones((), dtype=torch.bool, device=latent.device)
    for number, across in enumerate(range(-rank, 0)):
        size = latent.shape[across]
        length = (size * (1 - fraction) ** (1 / rank)).round().clamp(1, size)
        begin = ((size - length) * uniform[:, number]).round()
        place = _place(latent, across)
        inside = inside & (place >= _each(begin, latent)) & (place < _each(begin + length, latent))
    return ~inside


MASK_TYPES: Mapping[str, MaskType] = {mask_type.__name__: mask_type for mask_type in (start, end, both, first, box)}


def _place(latent: Tensor, axis: int) -> Tensor:
    """The number of each place along an axis, so shaped that it broadcasts over ``(B, 1, *s)``."""
    return torch.arange(latent.shape[axis], device=latent.device).reshape(-1, *[1] * (-axis - 1))


def _each(values: Tensor, latent: Tensor) -> Tensor:
    """One value a clip ``(B,)`` as ``(B, 1, 1 …)``."""
    return values.reshape(-1, *[1] * (latent.ndim - 1))


def _count(latent: Tensor, axis: int, fraction: Tensor) -> Tensor:
    """Places along an axis that a share is, at least one, and one less than all at most."""
    size = latent.shape[axis]
    return (size * fraction).round().clamp(min=1).clamp(max=size - 1)

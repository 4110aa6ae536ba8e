"""Random conditioning masks: which part of each latent training gives to the network.

``scm_media.conditioning`` says what a network gets of it. A new mask type is one function with the decorator
``@mask_type(name)``, here or in a package of your own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from scm_media import draws
from scm_media.registry import Registry

MaskType = Callable[[Tensor, int, Tensor, Tensor], Tensor]
"""``(latent, axis, fraction, uniform) -> mask``.

latent: ``(B, c, *s)``. axis: of the latent, counted from the end. fraction: ``(B,)``, the part that is given. uniform:
``(B, rank)``, uniform samples in [0, 1). mask: bool, true where the latent is given; it broadcasts to ``(B, 1, *s)``.
"""

MASK_TYPES: Registry[MaskType] = Registry("mask type")


def mask_type(name: str) -> Callable[[MaskType], MaskType]:
    """Returns a decorator that registers a ``MaskType`` under the name that recipes choose it by."""

    def register(function: MaskType) -> MaskType:
        MASK_TYPES.add(name, function)
        return function

    return register


class MaskSampler:
    """Draws conditioning masks from the global random state.

    probability: the fraction of the samples that have a mask. types: names of ``MASK_TYPES``, each as likely as the
    others. axis: the axis of the latent, counted from the end, that the types "start", "end", "both" and "first" are
    along. fraction: the smallest and the largest part of a sample that is given. Raises ValueError for values out of
    range and unknown types.
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
        if not types:
            raise ValueError(f"types must name one of {', '.join(MASK_TYPES)} or more, got none")
        if axis >= 0:
            raise ValueError(f"axis is counted from the end (-1: the last), got {axis}")
        if len(fraction) != 2 or not 0 < fraction[0] <= fraction[1] < 1:
            raise ValueError(f"fraction must be [least, largest] within (0, 1), got {list(fraction)}")
        self.types = [MASK_TYPES.find(name, "types") for name in types]
        self.probability, self.axis, self.fraction = probability, axis, tuple(fraction)

    def check_rank(self, rank: int) -> None:
        """Raises ValueError where latents with so many axes do not have the axis of the masks."""
        if self.axis < -rank:
            raise ValueError(f"conditioning.mask.axis is {self.axis}, but latents have {rank} axes: -{rank} … -1")

    def draw(self, latent: Tensor) -> Tensor:
        """Returns masks ``(B, 1, *s)`` for latents ``(B, c, *s)``, one where the latent is given."""
        num, rank = latent.shape[0], latent.ndim - 2
        self.check_rank(rank)
        uniform = draws.rand(num, 3 + rank, device=latent.device)
        least, largest = self.fraction
        fraction = least + (largest - least) * uniform[:, 2]
        masks = torch.stack(
            [make(latent, self.axis, fraction, uniform[:, 3:]).expand(num, 1, *latent.shape[2:]) for make in self.types]
        )
        index = (uniform[:, 1] * len(self.types)).long().clamp(max=len(self.types) - 1)
        drawn = masks[index, torch.arange(num, device=latent.device)]
        return (drawn & _per_sample(uniform[:, 0] < self.probability, latent)).to(latent.dtype)


@mask_type("start")
def mask_start(latent: Tensor, axis: int, fraction: Tensor, uniform: Tensor) -> Tensor:
    """Gives the start, so that a network learns to continue."""
    return _positions(latent, axis) < _per_sample(_num_given(latent, axis, fraction), latent)


@mask_type("end")
def mask_end(latent: Tensor, axis: int, fraction: Tensor, uniform: Tensor) -> Tensor:
    """Gives the end, so that a network learns what leads to it."""
    return _positions(latent, axis) >= _per_sample(latent.shape[axis] - _num_given(latent, axis, fraction), latent)


@mask_type("both")
def mask_both_ends(latent: Tensor, axis: int, fraction: Tensor, uniform: Tensor) -> Tensor:
    """Gives both ends, with a random part of the given fraction at the start."""
    num_given = _num_given(latent, axis, fraction)
    num_before = (num_given * uniform[:, 0]).round()
    positions, gap = _positions(latent, axis), latent.shape[axis] - num_given
    return (positions < _per_sample(num_before, latent)) | (positions >= _per_sample(num_before + gap, latent))


@mask_type("first")
def mask_first(latent: Tensor, axis: int, fraction: Tensor, uniform: Tensor) -> Tensor:
    """Gives the first position alone, so that a network learns to animate a frame."""
    return _positions(latent, axis) < min(1, latent.shape[axis] - 1)


@mask_type("box")
def mask_outside_box(latent: Tensor, axis: int, fraction: Tensor, uniform: Tensor) -> Tensor:
    """Gives everything but a box at a random position, which spans the same fraction of every axis."""
    rank = latent.ndim - 2
    inside = torch.ones((), dtype=torch.bool, device=latent.device)
    for number, across in enumerate(range(-rank, 0)):
        size = latent.shape[across]
        length = (size * (1 - fraction) ** (1 / rank)).round().clamp(1, size)
        begin = ((size - length) * uniform[:, number]).round()
        positions = _positions(latent, across)
        inside = inside & (positions >= _per_sample(begin, latent)) & (positions < _per_sample(begin + length, latent))
    return ~inside


def _positions(latent: Tensor, axis: int) -> Tensor:
    """Returns the index of each position along an axis, in a shape that broadcasts over ``(B, 1, *s)``."""
    return torch.arange(latent.shape[axis], device=latent.device).reshape(-1, *[1] * (-axis - 1))


def _per_sample(values: Tensor, latent: Tensor) -> Tensor:
    """Returns one value for each sample, ``(B,)``, as ``(B, 1, 1 …)``."""
    return values.reshape(-1, *[1] * (latent.ndim - 1))


def _num_given(latent: Tensor, axis: int, fraction: Tensor) -> Tensor:
    """Returns the number of given positions along an axis, ``(B,)``: at least one, and not all of them."""
    size = latent.shape[axis]
    return (size * fraction).round().clamp(min=1).clamp(max=size - 1)

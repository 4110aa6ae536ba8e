"""The tasks of an edit: what of the given sample is kept, and where in the new clip it lies.

A task is a function from the input ``(C, *S)`` and what was asked to a ``InpaintingInput``, and an entry in ``TASKS``;
drawing what is missing is the same for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from scm_media.modality import SizeOption


@dataclass(frozen=True)
class InpaintingInput:
    """A sample ``(C, *S)`` to be completed, and its mask ``(1, *S)``: one where the sample is kept.

    axis: along which it may be drawn in several windows, counted from the end; None where it is drawn at once.
    """

    sample: Tensor
    mask: Tensor
    axis: int | None


@dataclass(frozen=True)
class EditRequest:
    """What was asked of a task.

    size_option: the modality's measure along an axis, None where it has none. usual: how long the model's clips are,
    length: the new clip, keep: what is kept of the input; in places along that axis, None where it was not asked for.
    region: [first, last) of what is made anew along each axis of the sample. mask: ``(1, *S)``, true where it is made
    anew.
    """

    size_option: SizeOption | None = None
    usual: int = 0
    length: int | None = None
    keep: int | None = None
    region: tuple[tuple[int, int], ...] | None = None
    mask: Tensor | None = None

    def told(self, places: int) -> str:
        """A number of places in the user's unit."""
        assert self.size_option is not None
        return f"{places / self.size_option.rate:g} {self.size_option.unit}"


Task = Callable[[Tensor, EditRequest], InpaintingInput]


def continued(sample: Tensor, wish: EditRequest) -> InpaintingInput:
    """The end of the input is the start of the new clip; half of the clip, unless told otherwise."""
    axis, length = _line(sample, wish)
    keep = _kept(wish, length // 2, sample.shape[axis], length - 1)
    return _laid(sample.narrow(axis, sample.shape[axis] - keep, keep), axis, length, [(0, keep)])


def prepended(sample: Tensor, wish: EditRequest) -> InpaintingInput:
    """The start of the input is the end of the new clip; half of the clip, unless told otherwise."""
    axis, length = _line(sample, wish)
    keep = _kept(wish, length // 2, sample.shape[axis], length - 1)
    return _laid(sample.narrow(axis, 0, keep), axis, length, [(length - keep, length)])


def interpolated(sample: Tensor, wish: EditRequest) -> InpaintingInput:
    """The clip starts as the input starts and ends as it ends; a quarter of it each, unless told otherwise.

    Of a short input no more than its halves: of two frames, one at each end.
    """
    axis, length = _line(sample, wish)
    size = sample.shape[axis]
    keep = _kept(wish, min(length // 4, max(1, size // 2)), size, (length - 1) // 2, "at each end")
    ends = torch.cat([sample.narrow(axis, 0, keep), sample.narrow(axis, size - keep, keep)], axis)
    return _laid(ends, axis, length, [(0, keep), (length - keep, length)])


def animated(sample: Tensor, wish: EditRequest) -> InpaintingInput:
    """The input's first frame, or as many as are to be kept, is set in motion."""
    axis, length = _line(sample, wish)
    if sample.ndim != 4:
        raise ValueError("animate sets a frame in motion, and this modality has no frames; use --task continue")
    keep = _kept(wish, 1, sample.shape[axis], length - 1)
    return _laid(sample.narrow(axis, 0, keep), axis, length, [(0, keep)])


def inpainted(sample: Tensor, wish: EditRequest) -> InpaintingInput:
    """The input, as long as it is, with a region made anew: a window along every axis, or what a mask marks."""
    if wish.keep is not None or wish.length is not None:
        raise ValueError("inpaint keeps all of the input but a region or what a mask marks; give one of these alone")
    if (wish.region is None) == (wish.mask is None):
        raise ValueError("inpaint needs to know what is made anew: give a region or a mask, and not both")
    mask = torch.ones(1, *sample.shape[1:])
    if wish.mask is not None:
        if wish.mask.shape != mask.shape:
            raise ValueError(
                f"the mask is {_size(wish.mask)} and the input {_size(sample)}: give a mask of the input's size"
            )
        mask = 1 - wish.mask.to(mask)
    else:
        assert wish.region is not None
        for number, ((first, last), size) in enumerate(zip(wish.region, sample.shape[1:], strict=True)):
            if not 0 <= first < last <= size:
                raise ValueError(
                    f"the region's axis {number + 1} must be FIRST LAST with 0 ≤ FIRST < LAST ≤ {size} places of the "
                    f"input, got {first} {last}"
                )
        mask[(slice(None), *(slice(first, last) for first, last in wish.region))] = 0
    if not bool((mask == 0).any()):
        raise ValueError("the mask marks nothing to be made anew: white (above 0) is made anew, black is kept")
    return InpaintingInput(sample, mask, None if wish.size_option is None else wish.size_option.axis)


TASKS: Mapping[str, Task] = {
    "continue": continued,
    "prepend": prepended,
    "interpolate": interpolated,
    "animate": animated,
    "inpaint": inpainted,
}


def find_task(name: str) -> Task:
    """The task of a name; ValueError that lists the tasks there are."""
    if name not in TASKS:
        raise ValueError(f"there is no task {name!r}; there are: {', '.join(TASKS)}")
    return TASKS[name]


def blank(shape: tuple[int, ...], axis: int) -> InpaintingInput:
    """The canvas of a clip ``(C, *S)`` of which nothing is known."""
    return InpaintingInput(torch.zeros(shape), torch.zeros(1, *shape[1:]), axis)


def _line(sample: Tensor, wish: EditRequest) -> tuple[int, int]:
    """The axis that clips of this modality go on along, and the length of the new one.

    ValueError where they have none, and for what was asked of this task that is for another.
    """
    if wish.size_option is None or wish.size_option.axis is None:
        raise ValueError("clips of this modality have no duration to go on along; use --task inpaint")
    if wish.region is not None or wish.mask is not None:
        given = "mask" if wish.region is None else "region"
        raise ValueError(f"a {given} goes with inpaint; what is kept here is said by keep")
    return wish.size_option.axis, wish.usual if wish.length is None else wish.length


def _kept(wish: EditRequest, fraction: int, available: int, most: int, where: str = "") -> int:
    """How many places are kept, by default a share; ValueError where the input has fewer, or nothing would be new."""
    bound = min(available, most)
    if bound < 1:
        raise ValueError(f"a clip of {wish.told(most + 1)} has no room for what is kept and something new")
    keep = max(1, min(fraction, bound)) if wish.keep is None else wish.keep
    if not 1 <= keep <= bound:
        reason = "all that the input has" if available <= most else "so that the clip has something new"
        at_ends = f" {where}" if where else ""
        raise ValueError(
            f"keep must be above 0 and at most {wish.told(bound)}{at_ends}, {reason}; got {wish.told(keep)}"
        )
    return keep


def _laid(kept: Tensor, axis: int, length: int, spans: list[tuple[int, int]]) -> InpaintingInput:
    """A canvas of a length along an axis, with what is kept laid into spans of it, in order."""
    shape = list(kept.shape)
    shape[axis] = length
    sample, mask = torch.zeros(shape), torch.zeros(1, *shape[1:])
    taken = 0
    for first, last in spans:
        sample.narrow(axis, first, last - first).copy_(kept.narrow(axis, taken, last - first))
        mask.narrow(axis, first, last - first).fill_(1)
        taken += last - first
    return InpaintingInput(sample, mask, axis)


def _size(sample: Tensor) -> str:
    return "×".join(map(str, sample.shape[1:]))

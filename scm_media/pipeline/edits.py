"""The tasks of an edit: which part of the source is kept, and where in the new sample it lies.

A task is a function from the source ``(C, *S)`` and an ``EditPlan`` to an ``InpaintingInput``, and an entry in
``TASKS``; sampling the missing part is the same for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from scm_media.modality import SizeOption


@dataclass(frozen=True)
class InpaintingInput:
    """A sample ``(C, *S)`` to complete, and its mask ``(1, *S)``: one where the sample is given.

    axis: the axis, counted from the end, along which it may be sampled in several windows; None for one window alone.
    """

    sample: Tensor
    mask: Tensor
    axis: int | None

    @classmethod
    def empty(cls, shape: tuple[int, ...], axis: int) -> InpaintingInput:
        """Returns the input of a sample ``(C, *S)`` of which nothing is given."""
        return cls(torch.zeros(shape), torch.zeros(1, *shape[1:]), axis)


@dataclass(frozen=True)
class EditPlan:
    """An edit request in positions of the sample.

    size_option: the modality's measure along an axis, None where it has none. own_length: length of the model's
    samples along that axis. length, keep: length of the new sample and of the kept part; None where the request does
    not say. region: [first, last) to make anew along each axis. mask: ``(1, *S)``, true where the sample is made anew.
    """

    size_option: SizeOption | None = None
    own_length: int = 0
    length: int | None = None
    keep: int | None = None
    region: tuple[tuple[int, int], ...] | None = None
    mask: Tensor | None = None

    def format_length(self, num: int) -> str:
        """Returns a number of positions as text in the user's unit."""
        assert self.size_option is not None
        return f"{num / self.size_option.rate:g} {self.size_option.unit}"


Task = Callable[[Tensor, EditPlan], InpaintingInput]


def continue_sample(source: Tensor, plan: EditPlan) -> InpaintingInput:
    """Makes the end of the source the start of the new sample; keeps half of the sample by default."""
    axis, length = _axis_and_length(plan)
    keep = _choose_keep(plan, length // 2, source.shape[axis], length - 1)
    return _place_kept(source.narrow(axis, source.shape[axis] - keep, keep), axis, length, [(0, keep)])


def prepend(source: Tensor, plan: EditPlan) -> InpaintingInput:
    """Makes the start of the source the end of the new sample; keeps half of the sample by default."""
    axis, length = _axis_and_length(plan)
    keep = _choose_keep(plan, length // 2, source.shape[axis], length - 1)
    return _place_kept(source.narrow(axis, 0, keep), axis, length, [(length - keep, length)])


def interpolate(source: Tensor, plan: EditPlan) -> InpaintingInput:
    """Starts the new sample as the source starts, and ends it as the source ends.

    Keeps a quarter of the sample at each end by default, and of a short source at most half at each end.
    """
    axis, length = _axis_and_length(plan)
    size = source.shape[axis]
    keep = _choose_keep(plan, min(length // 4, max(1, size // 2)), size, (length - 1) // 2, " at each end")
    ends = torch.cat([source.narrow(axis, 0, keep), source.narrow(axis, size - keep, keep)], axis)
    return _place_kept(ends, axis, length, [(0, keep), (length - keep, length)])


def animate(source: Tensor, plan: EditPlan) -> InpaintingInput:
    """Sets the source's first frame in motion; keeps more frames when the plan says so."""
    axis, length = _axis_and_length(plan)
    if source.ndim != 4:
        raise ValueError("animate sets a frame in motion, and this modality has no frames; use --task continue")
    keep = _choose_keep(plan, 1, source.shape[axis], length - 1)
    return _place_kept(source.narrow(axis, 0, keep), axis, length, [(0, keep)])


def inpaint(source: Tensor, plan: EditPlan) -> InpaintingInput:
    """Keeps the source and its length, except for a region along every axis or the part that a mask marks."""
    if plan.keep is not None or plan.length is not None:
        raise ValueError(
            "inpaint keeps all of the input but a region or what a mask marks; give --region or --mask, and no --keep"
        )
    if (plan.region is None) == (plan.mask is None):
        raise ValueError("inpaint needs to know what is made anew: give --region or --mask, and not both")
    mask = torch.ones(1, *source.shape[1:])
    if plan.mask is not None:
        if plan.mask.shape != mask.shape:
            raise ValueError(
                f"the mask is {format_size(plan.mask)} and the input {format_size(source)}: give a mask of the input's "
                "size"
            )
        mask = 1 - plan.mask.to(mask)
    else:
        assert plan.region is not None
        for number, ((first, last), size) in enumerate(zip(plan.region, source.shape[1:], strict=True)):
            if not 0 <= first < last <= size:
                raise ValueError(
                    f"the region's axis {number + 1} must be FIRST LAST with 0 ≤ FIRST < LAST ≤ {size} positions of "
                    f"the input, got {first} {last}"
                )
        mask[(slice(None), *(slice(first, last) for first, last in plan.region))] = 0
    if not bool((mask == 0).any()):
        raise ValueError("the mask marks nothing to be made anew: white (above 0) is made anew, black is kept")
    return InpaintingInput(source, mask, None if plan.size_option is None else plan.size_option.axis)


TASKS: Mapping[str, Task] = {
    "continue": continue_sample,
    "prepend": prepend,
    "interpolate": interpolate,
    "animate": animate,
    "inpaint": inpaint,
}


def find_task(name: str) -> Task:
    """Returns the task of a name; raises ValueError with the tasks there are."""
    if name not in TASKS:
        raise ValueError(f"there is no task {name!r}; there are: {', '.join(TASKS)}")
    return TASKS[name]


def format_size(sample: Tensor) -> str:
    """Returns the size of a sample ``(C, *S)`` as text: ``28×28``."""
    return "×".join(map(str, sample.shape[1:]))


def _axis_and_length(plan: EditPlan) -> tuple[int, int]:
    """Returns the axis that samples are continued along, and the length of the new sample.

    Raises ValueError for a modality without such an axis, and for a region or mask, which belong to inpaint.
    """
    if plan.size_option is None or plan.size_option.axis is None:
        raise ValueError("samples of this modality have no duration to go on along; use --task inpaint")
    if plan.region is not None or plan.mask is not None:
        given = "mask" if plan.region is None else "region"
        raise ValueError(f"a {given} goes with inpaint; this task takes keep")
    return plan.size_option.axis, plan.own_length if plan.length is None else plan.length


def _choose_keep(plan: EditPlan, default: int, available: int, most: int, at: str = "") -> int:
    """Returns how many positions are kept; raises ValueError for more than the source or the new sample can hold."""
    bound = min(available, most)
    if bound < 1:
        raise ValueError(f"a sample of {plan.format_length(most + 1)} has no room for a kept part and a new one")
    keep = max(1, min(default, bound)) if plan.keep is None else plan.keep
    if not 1 <= keep <= bound:
        reason = "all that the input has" if available <= most else "so that the sample has something new"
        raise ValueError(
            f"keep must be above 0 and at most {plan.format_length(bound)}{at}, {reason}; got "
            f"{plan.format_length(keep)}"
        )
    return keep


def _place_kept(kept: Tensor, axis: int, length: int, spans: list[tuple[int, int]]) -> InpaintingInput:
    """Returns an input of a length along an axis that has the kept part in spans of that axis, in order."""
    shape = list(kept.shape)
    shape[axis] = length
    placed = InpaintingInput.empty(tuple(shape), axis)
    taken = 0
    for first, last in spans:
        placed.sample.narrow(axis, first, last - first).copy_(kept.narrow(axis, taken, last - first))
        placed.mask.narrow(axis, first, last - first).fill_(1)
        taken += last - first
    return placed

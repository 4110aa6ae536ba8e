"""Windows: a sample that is longer than the network makes at once is made in windows that overlap."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from scm_media.modality import Modality, SizeOption
from scm_media.pipeline.blending import find_runs
from scm_media.pipeline.edits import InpaintingInput

OVERLAP = 0.25
"""Fraction of a window that the next one is given by default."""


@dataclass(frozen=True)
class Windows:
    """Windows along an axis: the axis, counted from the end, first positions in order of sampling, and their length."""

    axis: int
    starts: list[int]
    length: int


def find_axis_option(modality: Modality) -> tuple[str, SizeOption] | None:
    """Returns name and size option of the axis along which samples can be continued; None if there is none."""
    options = modality.size_options.items()
    return next(((name, option) for name, option in options if option.axis is not None), None)


def window_length(modality: Modality, sizes: Mapping[str, float]) -> int | None:
    """Returns how many positions along the axis are sampled at once, with these sizes; None for any number."""
    found = find_axis_option(modality)
    if found is None or found[1].longest is None:
        return None
    name, option = found
    assert option.axis is not None and option.longest is not None
    return modality.shape(**{**sizes, name: option.longest})[option.axis]


def empty_input(modality: Modality, sizes: Mapping[str, float]) -> InpaintingInput | None:
    """Returns the empty input of a sample with these sizes if it is longer than a window, None if it is not."""
    found, window = find_axis_option(modality), window_length(modality, sizes)
    if found is None or window is None:
        return None
    axis, shape = found[1].axis, modality.shape(**sizes)
    assert axis is not None
    return InpaintingInput.empty(shape, axis) if shape[axis] > window else None


def plan_windows(
    given: InpaintingInput | None, modality: Modality, overlap: float | None, sizes: Mapping[str, float]
) -> Windows | None:
    """Returns the windows that complete an input; None for an input, or a sample without one, that is made at once.

    Raises ValueError for an overlap that is out of range, or without windows to join.
    """
    window = None if given is None or given.axis is None else window_length(modality, sizes)
    if window is None or given is None or given.axis is None:
        if overlap is not None:
            raise ValueError(f"overlap {overlap:g} joins nothing: this sample is made at once; leave it out")
        return None
    missing = (given.mask <= 0).transpose(given.axis, -1).reshape(-1, given.mask.shape[given.axis]).any(0)
    starts = window_starts(missing, window, overlap_length(modality, window, overlap))
    return Windows(given.axis, starts, window)


def overlap_length(modality: Modality, window: int, overlap: float | None) -> int:
    """Returns how many positions a window is given by the one before it.

    overlap: in the size option's unit; None for a quarter of a window. Raises ValueError for an overlap that rounds to
    nothing, or is longer than half of a window.
    """
    found = find_axis_option(modality)
    assert found is not None
    option = found[1]
    num = round(window * OVERLAP) if overlap is None else round(overlap * option.rate)
    if not 1 <= num <= window // 2:
        raise ValueError(
            f"overlap must be above 0 and at most {window // 2 / option.rate:g} {option.unit}, half of what is made at "
            f"once; got {num / option.rate if overlap is None else overlap:g}"
        )
    return num


def window_starts(missing: Tensor, window: int, overlap: int) -> list[int]:
    """Returns the first positions of windows that cover everything missing, in the order in which they are sampled.

    missing: ``(n,)``, true at missing positions along the axis. A stretch that fits into a window with ``overlap``
    positions on either side lies in the middle of one; a longer one is made from its start on, each window with at
    least ``overlap`` positions that were made before it. A window reaches beyond the end of a sample that is shorter.
    """
    size = len(missing)
    starts: list[int] = []
    for first, last in find_runs(missing):
        begin, stop = max(0, first - overlap), min(size, last + overlap)
        if stop - begin <= window:
            middle = (first + last - window) // 2
            starts.append(max(0, min(middle, size - window)))
            continue
        step = window - overlap
        num = math.ceil((stop - begin - window) / step) + 1
        starts += [min(begin + number * step, stop - window) for number in range(num)]
    return starts

"""Samples longer than what is drawn at once: where the windows lie that make what is missing of them."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor

from scm_media.modality import Modality, SizeOption
from scm_media.pipeline.blending import runs
from scm_media.pipeline.edits import InpaintingInput, blank

OVERLAP = 0.25
"""Of a window, that the next one knows; unless told otherwise."""


def axis_option(modality: Modality) -> tuple[str, SizeOption] | None:
    """Name and extent of the measure along which clips of a modality go on; None where there is none."""
    return next(
        ((name, size_option) for name, size_option in modality.size_options.items() if size_option.axis is not None),
        None,
    )


def window_size(modality: Modality, sizes: Mapping[str, float]) -> int | None:
    """Places along the axis that are drawn at once, with these extents; None where any number is."""
    found = axis_option(modality)
    if found is None or found[1].longest is None:
        return None
    name, size_option = found
    assert size_option.axis is not None and size_option.longest is not None
    return modality.shape(**{**sizes, name: size_option.longest})[size_option.axis]


def longer(modality: Modality, overlap: float | None, sizes: Mapping[str, float]) -> InpaintingInput | None:
    """The empty canvas of a clip with these extents that is longer than what is drawn at once; None of another.

    ValueError for an overlap where nothing is joined.
    """
    found, window = axis_option(modality), window_size(modality, sizes)
    if found is not None and window is not None:
        axis, shape = found[1].axis, modality.shape(**sizes)
        assert axis is not None
        if shape[axis] > window:
            return blank(shape, axis)
    if overlap is not None:
        raise ValueError(f"overlap {overlap:g} joins nothing: this clip is drawn at once; leave it out")
    return None


def windows_of(
    canvas: InpaintingInput, modality: Modality, overlap: float | None, sizes: Mapping[str, float]
) -> tuple[list[int], int | None]:
    """Where the windows begin that complete a canvas, and how long they are; None for the canvas as one.

    ValueError for an overlap that cannot be, or where nothing is joined.
    """
    window = None if canvas.axis is None else window_size(modality, sizes)
    if window is None or canvas.axis is None:
        if overlap is not None:
            raise ValueError(f"overlap {overlap:g} joins nothing: this clip is drawn at once; leave it out")
        return [0], None
    unknown = (canvas.mask <= 0).transpose(canvas.axis, -1).reshape(-1, canvas.mask.shape[canvas.axis]).any(0)
    return window_starts(unknown, window, overlap_size(modality, window, overlap)), window


def overlap_size(modality: Modality, window: int, overlap: float | None) -> int:
    """Places that a window knows of the one before it; overlap: in the extent's unit, None for a quarter of a window.

    ValueError for one that leaves a window nothing to know, or less than half of it to make.
    """
    found = axis_option(modality)
    assert found is not None
    size_option = found[1]
    places = round(window * OVERLAP) if overlap is None else round(overlap * size_option.rate)
    if not 1 <= places <= window // 2:
        raise ValueError(
            f"overlap must be above 0 and at most {window // 2 / size_option.rate:g} {size_option.unit}, half of what "
            f"is drawn at once; got {places / size_option.rate if overlap is None else overlap:g}"
        )
    return places


def window_starts(unknown: Tensor, window: int, overlap: int) -> list[int]:
    """First places of windows that together cover all that is unknown, in the order in which they are drawn.

    unknown: ``(n,)``, true where a place along the axis is. A stretch that a window can hold with ``overlap`` places on
    either side lies in the middle of one; a longer one is drawn from its start on, each window with at least so many
    places of what was made before it. The last may reach beyond the end where the whole is shorter than a window.
    """
    size = len(unknown)
    starts: list[int] = []
    for first, last in runs(unknown):
        begin, stop = max(0, first - overlap), min(size, last + overlap)
        if stop - begin <= window:
            middle = (first + last - window) // 2
            starts.append(max(0, min(middle, size - window)))
            continue
        step = window - overlap
        num = math.ceil((stop - begin - window) / step) + 1
        starts += [min(begin + number * step, stop - window) for number in range(num)]
    return starts

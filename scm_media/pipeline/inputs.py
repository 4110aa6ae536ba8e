"""From what a user gives for an edit (files, seconds, a window) to the canvas of its task."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from scm_media.interfaces import Extent, Modality
from scm_media.pipeline.edits import Canvas, Wish, find_task
from scm_media.pipeline.windows import axis_extent

Source = str | Path | Tensor
"""A file, or a sample ``(C, *S)`` as the modality has them."""


def canvas_of(
    modality: Modality,
    task: str,
    source: Source,
    keep: float | None = None,
    region: Sequence[float] | None = None,
    mask: Source | None = None,
    extents: Mapping[str, float] | None = None,
) -> Canvas:
    """The canvas of a task; keep, region, mask and extents as in ``Pipeline.edit_batches``.

    Raises ValueError for a task or an extent that there is not, a source that does not fit the modality, and anything
    that the task does not use or cannot do.
    """
    make = find_task(task)
    found = axis_extent(modality)
    extent = None if found is None else found[1]
    sample = read_whole(modality, source)
    usual, length = 0, None
    if extent is not None and extent.axis is not None:
        usual = modality.shape()[extent.axis]
        length = modality.shape(**extents)[extent.axis] if extents else None
    elif extents:
        modality.shape(**extents)  # refuses what it does not know
        raise ValueError(f"what is edited here has the size of the input; leave {', '.join(extents)} out")
    wish = Wish(
        extent=extent,
        usual=usual,
        length=length,
        keep=None if keep is None else _places("keep", keep, extent),
        region=None if region is None else _region(region, extent, sample),
        mask=None if mask is None else (read_whole(modality, mask).mean(0, keepdim=True) > 0),
    )
    return make(sample, wish)


def read_whole(modality: Modality, source: Source) -> Tensor:
    """The sample ``(C, *S)`` of a source as the model takes it, whole along the axis that an extent measures.

    Raises ValueError for a file that cannot be read, and for a sample of other channels or another size across.
    """
    found = axis_extent(modality)
    name = "the given sample" if isinstance(source, Tensor) else str(source)
    if isinstance(source, Tensor):
        sample = source.detach().to("cpu", torch.float32)
    elif own := getattr(modality, "read_whole", None):
        sample = own(Path(source))
    else:
        sample = modality.read(Path(source))
        sample = modality.conform(sample) if found is None else sample
    expected = list(modality.shape())
    given = list(sample.shape)
    if len(given) == len(expected) and found is not None and found[1].axis is not None:
        expected[found[1].axis] = given[found[1].axis]
    # Pictures may come in the shapes of several buckets.
    comparable = given if found is not None else given[:1]
    if len(given) != len(expected) or comparable != expected[: len(comparable)]:
        raise ValueError(
            f"{name} is a sample of {'×'.join(map(str, given))}, but the model takes {'×'.join(map(str, expected))}"
        )
    if sample.numel() == 0:
        raise ValueError(f"{name} is empty: {'×'.join(map(str, given))} values")
    if not bool(torch.isfinite(sample).all()):
        raise ValueError(f"{name} has values that are not finite (NaN or infinity)")
    return sample


def _places(name: str, value: float, extent: Extent | None) -> int:
    """A measure in the extent's unit as a number of places; ValueError where there is no extent, or it is no number."""
    if extent is None:
        raise ValueError(f"{name} {value:g} is measured along nothing: clips of this modality have no duration")
    if not math.isfinite(value):
        raise ValueError(f"{name} must be a number of {extent.unit}, got {value}")
    return round(value * extent.rate)


def _region(region: Sequence[float], extent: Extent | None, sample: Tensor) -> tuple[tuple[int, int], ...]:
    """[first, last) along every axis: two numbers go along the extent's axis, in its unit; else two an axis, places."""
    sizes = list(sample.shape[1:])
    if len(region) == 2 and extent is not None and extent.axis is not None:
        window = [(0, size) for size in sizes]
        first, last = (_places("region", value, extent) for value in region)
        # What is rounded to places may lie a place beyond an end that was meant.
        window[extent.axis] = (first, sizes[extent.axis] if last == sizes[extent.axis] + 1 else last)
        return tuple(window)
    if len(region) != 2 * len(sizes):
        along = f"two numbers in {extent.unit}, or " if extent is not None else ""
        raise ValueError(
            f"region must be {along}first and last place along each axis ({2 * len(sizes)} numbers for "
            f"{'×'.join(map(str, sizes))} places), got {len(region)}"
        )
    if any(value != int(value) for value in region if math.isfinite(value)) or not all(map(math.isfinite, region)):
        raise ValueError(f"region must be whole numbers of places, got {' '.join(f'{value:g}' for value in region)}")
    numbers = [int(value) for value in region]
    return tuple(zip(numbers[::2], numbers[1::2], strict=True))

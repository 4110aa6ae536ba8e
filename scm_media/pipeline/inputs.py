"""From what a user gives for an edit (files, seconds, a window) to the canvas of its task."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from scm_media.modality import Modality, SizeOption
from scm_media.pipeline.edits import EditRequest, InpaintingInput, find_task
from scm_media.pipeline.windows import axis_option

Source = str | Path | Tensor
"""A file, or a sample ``(C, *S)`` as the modality has them."""


def canvas_of(
    modality: Modality,
    task: str,
    source: Source,
    keep: float | None = None,
    region: Sequence[float] | None = None,
    mask: Source | None = None,
    sizes: Mapping[str, float] | None = None,
) -> InpaintingInput:
    """The canvas of a task; keep, region, mask and extents as in ``Pipeline.edit_batches``.

    Raises ValueError for a task or an extent that there is not, a source that does not fit the modality, and anything
    that the task does not use or cannot do.
    """
    make = find_task(task)
    found = axis_option(modality)
    size_option = None if found is None else found[1]
    sample = read_whole(modality, source)
    usual, length = 0, None
    if size_option is not None and size_option.axis is not None:
        usual = modality.shape()[size_option.axis]
        length = modality.shape(**sizes)[size_option.axis] if sizes else None
    elif sizes:
        modality.shape(**sizes)  # refuses what it does not know
        raise ValueError(f"what is edited here has the size of the input; leave {', '.join(sizes)} out")
    wish = EditRequest(
        size_option=size_option,
        usual=usual,
        length=length,
        keep=None if keep is None else _places("keep", keep, size_option),
        region=None if region is None else _region(region, size_option, sample),
        mask=None if mask is None else (read_whole(modality, mask).mean(0, keepdim=True) > 0),
    )
    return make(sample, wish)


def read_whole(modality: Modality, source: Source) -> Tensor:
    """The sample ``(C, *S)`` of a source as the model takes it, whole along the axis that an extent measures.

    Raises ValueError for a file that cannot be read, and for a sample of other channels or another size across.
    """
    found = axis_option(modality)
    name = "the given sample" if isinstance(source, Tensor) else str(source)
    if isinstance(source, Tensor):
        sample = source.detach().to("cpu", torch.float32)
    else:
        sample = modality.read_whole(Path(source))
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


def _places(name: str, value: float, size_option: SizeOption | None) -> int:
    """A measure in the extent's unit as a number of places; ValueError where there is no extent, or it is no number."""
    if size_option is None:
        raise ValueError(f"{name} {value:g} is measured along nothing: clips of this modality have no duration")
    if not math.isfinite(value):
        raise ValueError(f"{name} must be a number of {size_option.unit}, got {value}")
    return round(value * size_option.rate)


def _region(region: Sequence[float], size_option: SizeOption | None, sample: Tensor) -> tuple[tuple[int, int], ...]:
    """[first, last) along every axis: two numbers go along the extent's axis, in its unit; else two an axis, places."""
    sizes = list(sample.shape[1:])
    if len(region) == 2 and size_option is not None and size_option.axis is not None:
        window = [(0, size) for size in sizes]
        first, last = (_places("region", value, size_option) for value in region)
        # What is rounded to places may lie a place beyond an end that was meant.
        window[size_option.axis] = (first, sizes[size_option.axis] if last == sizes[size_option.axis] + 1 else last)
        return tuple(window)
    if len(region) != 2 * len(sizes):
        along = f"two numbers in {size_option.unit}, or " if size_option is not None else ""
        raise ValueError(
            f"region must be {along}first and last place along each axis ({2 * len(sizes)} numbers for "
            f"{'×'.join(map(str, sizes))} places), got {len(region)}"
        )
    if any(value != int(value) for value in region if math.isfinite(value)) or not all(map(math.isfinite, region)):
        raise ValueError(f"region must be whole numbers of places, got {' '.join(f'{value:g}' for value in region)}")
    numbers = [int(value) for value in region]
    return tuple(zip(numbers[::2], numbers[1::2], strict=True))

"""From an edit request (files, seconds, a region) to the inpainting input of its task."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from scm_media.modality import Modality, SizeOption
from scm_media.pipeline.edits import EditPlan, InpaintingInput, find_task
from scm_media.pipeline.requests import EditRequest, Source
from scm_media.pipeline.windows import find_axis_option


def prepare_input(modality: Modality, request: EditRequest) -> InpaintingInput:
    """Returns the inpainting input of a request.

    Raises ValueError for an unknown task or size, a source that does not fit the modality, and anything that the task
    does not use or cannot do.
    """
    task = find_task(request.task)
    found = find_axis_option(modality)
    option = None if found is None else found[1]
    source = read_source(modality, request.source)
    sizes = request.sampling.sizes
    own_length, length = 0, None
    if option is not None and option.axis is not None:
        own_length = modality.shape()[option.axis]
        length = modality.shape(**sizes)[option.axis] if sizes else None
    elif sizes:
        modality.shape(**sizes)  # refuses unknown names
        raise ValueError(f"an edited sample has the size of the input; leave {', '.join(sizes)} out")
    plan = EditPlan(
        size_option=option,
        own_length=own_length,
        length=length,
        keep=None if request.keep is None else _to_positions("keep", request.keep, option),
        region=None if request.region is None else _convert_region(request.region, option, source),
        mask=None if request.mask is None else (read_source(modality, request.mask).mean(0, keepdim=True) > 0),
    )
    return task(source, plan)


def read_source(modality: Modality, source: Source) -> Tensor:
    """Returns the sample ``(C, *S)`` of a source, of any length along the axis of the modality's size option.

    Raises ValueError for a file that cannot be read, and for a sample of other channels or of another size across.
    """
    found = find_axis_option(modality)
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


def _to_positions(name: str, value: float, option: SizeOption | None) -> int:
    """Returns a length in the size option's unit as a number of positions; raises ValueError without a size option."""
    if option is None:
        raise ValueError(f"{name} {value:g} has no unit here: samples of this modality have no duration")
    if not math.isfinite(value):
        raise ValueError(f"{name} must be a number of {option.unit}, got {value}")
    return round(value * option.rate)


def _convert_region(region: Sequence[float], option: SizeOption | None, source: Tensor) -> tuple[tuple[int, int], ...]:
    """Returns [first, last) along every axis.

    Two numbers go along the size option's axis, in its unit; otherwise there are two numbers an axis, by index.
    """
    sizes = list(source.shape[1:])
    if len(region) == 2 and option is not None and option.axis is not None:
        spans = [(0, size) for size in sizes]
        first, last = (_to_positions("region", value, option) for value in region)
        # Rounding may put a value that means the end one position behind it.
        spans[option.axis] = (first, sizes[option.axis] if last == sizes[option.axis] + 1 else last)
        return tuple(spans)
    if len(region) != 2 * len(sizes):
        along = f"two numbers in {option.unit}, or " if option is not None else ""
        raise ValueError(
            f"region must be {along}first and last index along each axis ({2 * len(sizes)} numbers for "
            f"{'×'.join(map(str, sizes))} positions), got {len(region)}"
        )
    if any(not math.isfinite(value) or value != int(value) for value in region):
        raise ValueError(f"region must be whole numbers, got {' '.join(f'{value:g}' for value in region)}")
    numbers = [int(value) for value in region]
    return tuple(zip(numbers[::2], numbers[1::2], strict=True))

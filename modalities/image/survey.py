"""This module suggests settings for somebody's pictures, and warns of what is odd about them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from modalities.pictures.transparency import LEVELS, Backgrounds
from scm_media.display import span

SIZES = (32, 64)
"""Suggested sizes lie between these: larger pictures are shrunk."""
FLAT = 0.01
"""A picture whose values have a smaller standard deviation, in [-1, 1], is of one colour."""
TELLING = 0.05
"""The least part of the pictures that is worth a warning."""


def suggest_config(
    paths: Sequence[str | Path], read: Callable[[str | Path, float], Tensor]
) -> tuple[dict[str, Any], str]:
    """Returns keys of a recipe's ``modality`` that fit these files, and a sentence about the files.

    read: returns a file's picture ``(3, H, W)`` in [-1, 1] on a background of this level.
    size: the median of the shorter sides as a multiple of eight, which autoencoders need, from 32 to 64.
    channels: 1 where every picture is grey. fit: "pad" where all are within the size, or where half of them are cut
    out of a transparent background, which padding then continues; else "crop". background: white where fewer
    transparent pictures are lost on it than on black, or as many. Raises ValueError if none of them can be decoded.
    """
    pictures, backgrounds, problem = [], Backgrounds(), ""
    for path in paths:
        try:
            picture, other = (read(path, level) for level in LEVELS)
        except ValueError as error:
            problem = problem or str(error)
            continue
        pictures.append(picture)
        backgrounds.add(picture.numpy(), other.numpy())
    if not pictures:
        raise ValueError(
            f"none of the {len(paths)} files that were opened can be decoded as a picture; "
            f"{problem or 'there are none'}; open one in a viewer to see whether it is damaged"
        )
    heights, widths = zip(*(picture.shape[1:] for picture in pictures), strict=True)
    grey = all(bool((picture == picture[:1]).all()) for picture in pictures)
    shorter = sorted(map(min, heights, widths))[len(pictures) // 2]
    size = min(max(8 * math.ceil(shorter / 8), SIZES[0]), SIZES[1])
    padded = max(*heights, *widths) <= size or 2 * backgrounds.num_transparent >= len(pictures)
    keys: dict[str, Any] = {"size": size, "channels": 1 if grey else 3, "fit": "pad" if padded else "crop"}
    seen = (
        f"{len(pictures)} of {len(paths)} opened files are pictures, {'grey' if grey else 'in colour'}, "
        f"{span(widths)} pixels wide and {span(heights)} high"
    )
    return keys | backgrounds.keys(), seen + backgrounds.describe()


def data_warnings(samples: Sequence[Tensor], channels: int, background: float) -> list[str]:
    """Returns warnings about samples ``(C, H, W)``: of one colour, or grey where the recipe is in colour.

    background: the level that transparent pixels have.
    """
    warnings = []
    flat = [sample for sample in samples if sample.std() < FLAT]
    if flat and len(flat) >= TELLING * len(samples):
        other, level = ("white", "1") if background < 0 else ("black", "-1")
        hint = ""
        if all(bool((sample - background).abs().max() < 2 * FLAT) for sample in flat):
            hint = f": if they are transparent, modality.background={level} shows them on {other}"
        warnings.append(f"{len(flat)} of {len(samples)} pictures that were looked at are of one colour{hint}")
    if channels > 1 and samples and all(bool((sample == sample[:1]).all()) for sample in samples):
        warnings.append(
            f"all {len(samples)} pictures that were looked at are grey, and the recipe is in colour: every channel "
            "repeats the grey; modality.channels=1 would learn a third of the values"
        )
    return warnings

"""Examines videos: which can be used, which keys of a recipe fit them, what is odd about them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from torch import Tensor

from modalities.pictures.transparency import LEVELS, Backgrounds
from modalities.video.footage import Footage, Picture, VideoError, check_end, wrap_errors
from modalities.video.reading import open_footage
from modalities.video.timing import Span
from scm_media.display import span

WHOLE = 20.0
"""Videos of up to so many seconds are decoded from end to end; three stretches of longer ones are."""
STRETCH = 4.0
NUM_FRAMES = 16
RATES = (8.0, 30.0)
"""Frames a second: the lowest suggestion, unless files have fewer, and the rate of folders of pictures."""
MOST_LEFT_OUT = 0.1
"""The fraction of files that may be left out as too short for a clip; of more the last frame is repeated."""
SIZES = (16, 64)
"""Bounds of a suggested size, in pixels: larger ones need a GPU."""
STILL = 2 / 255
"""A mean change from frame to frame below this is no motion: coding alone changes a still as much."""
BLACK = -0.95
ODDITIES = {
    "hdr": (
        "HDR (PQ or HLG)",
        "it is read as if it were not, so that its colours are dull; convert it first, for example with ffmpeg -i IN "
        "-vf zscale=t=linear:npl=100,format=gbrpf32le,zscale=p=bt709,tonemap=hable,zscale=t=bt709:m=bt709:r=tv,"
        "format=yuv420p OUT",
    ),
    "tilted": (
        "footage to be shown at an angle that is no multiple of 90 degrees",
        "it is read turned to the nearest multiple",
    ),
}
"""Oddities of files and their consequences, by the names that footage has for them."""


def inspect(footage: Footage, span: Span, folder_rate: float, wanted: int) -> None:
    """Raises VideoError for footage that cannot be used for clips of ``wanted`` frames, by decoding it.

    A span up to ``WHOLE`` seconds is decoded whole; of a longer one ``STRETCH`` seconds at its start, in its middle and
    at its end. At a file's start, damage that decoders could conceal is an error too; after a seek it is not, since
    decoders lack earlier frames and complain of intact files. Reasons: "damaged", "cut short" (it ends before its
    header says), "one frame", "no frames".
    """
    length = span.stop - span.start
    starts = [span.start]
    reach = length
    if length > WHOLE:
        starts, reach = [span.start, span.start + (length - STRETCH) / 2, span.stop - STRETCH], STRETCH
    num, end = 0, 0.0
    for start in starts:
        if start > 0:
            added, end = _decode(footage, start, reach, span.tolerance)
        else:
            with open_footage(footage.file, folder_rate, strict=True) as strict:
                added, end = _decode(strict, start, reach, span.tolerance)
        num += added
    if num == 0:
        raise VideoError(footage.file, "no frames", "holds no frame that can be decoded: record it again")
    check_end(footage, end, span.stop)
    if num == 1 and wanted > 1:
        raise VideoError(footage.file, "one frame", "is a single picture, expected a video: remove it")


def _decode(footage: Footage, start: float, reach: float, tolerance: float) -> tuple[int, float]:
    """Returns how many frames are shown in so many seconds from ``start`` on, and when the last ends.

    The first one's pixels are converted, which shows whether the others' can be.
    """
    num, end = 0, 0.0
    for begin, stop, picture in footage.frames(start + tolerance):
        if begin >= start + reach:
            break
        if num == 0:
            with wrap_errors(footage.file, "has frames whose colours cannot be converted"):
                picture.pixels(16, 16, 3, 0.0)
        num, end = num + 1, stop
    return num, end


def suggest_config(paths: Sequence[str | Path]) -> tuple[dict[str, Any], str]:
    """Returns keys of a recipe's ``modality`` that fit these files by their headers, and a description of the files.

    frame_rate: at least 8, high enough that 16 frames fit into the median file, at most the files' median rate. size:
    the median of the shorter sides as a multiple of 8, from 16 to 64. padding: "hold" if more than a tenth of the files
    is shorter than that, which would be left out otherwise. background: white where fewer of the first frames that are
    partly transparent are lost on it than on black, or as many. Raises ValueError if none of them can be opened.
    """
    rates, lengths, sides, sizes, backgrounds, problem = [], [], [], [], Backgrounds(), ""
    for path in paths:
        try:
            with open_footage(path, RATES[1]) as footage:
                rates.append(footage.rate)
                lengths.append(footage.duration)
                sides.append(min(footage.height, footage.width))
                sizes.append((footage.width, footage.height))
                for _, _, frame in islice(footage.frames(0.0), 1):
                    backgrounds.add(*(_first_look(frame, level) for level in LEVELS))
        except ValueError as error:
            problem = problem or str(error)
    if not rates:
        raise ValueError(
            f"none of the {len(paths)} files that were opened can be decoded as a video; "
            f"{problem or 'there are none'}; play one to see whether it is damaged"
        )
    usual = median(lengths)
    rate = min(max(RATES[0], NUM_FRAMES / usual), median(rates))
    num_short = sum(length * rate < NUM_FRAMES - 0.5 for length in lengths)
    keys: dict[str, Any] = {
        "frame_rate": float(f"{rate:.4g}"),
        "size": min(max(8 * round(median(sides) / 8), SIZES[0]), SIZES[1]),
        "padding": "hold" if num_short > MOST_LEFT_OUT * len(lengths) else "refuse",
    }
    seen = (
        f"{len(rates)} of {len(paths)} opened files are videos, "
        f"{' to '.join('×'.join(map(str, size)) for size in sorted({min(sizes), max(sizes)}))} pixels, "
        f"{span(rates, '.4g')} frames/s, "
        f"{span(lengths, '.3g')} s long (half of them at most {usual:.3g} s)"
    )
    if keys["padding"] == "hold":
        seen += f"; {num_short} are shorter than a clip, and repeat their last frame (padding: refuse leaves them out)"
    return keys | backgrounds.keys(), seen + backgrounds.describe()


def _first_look(frame: Picture, level: float) -> np.ndarray:
    """Returns a small picture ``(3, h, w)`` in [-1, 1] of a frame on a background of this level."""
    return frame.pixels(SIZES[1], SIZES[1], 3, level).transpose(2, 0, 1) / 127.5 - 1


def data_warnings(samples: Sequence[Tensor], odd: Mapping[str, Collection[str]]) -> list[str]:
    """Returns warnings about clips ``(C, T, H, W)`` and about files.

    odd: names of files by a key of ``ODDITIES``. Warns of samples that are black, nearly without motion, or all grey.
    """
    warnings = []
    for name, files in odd.items():
        what, meaning = ODDITIES[name]
        warnings.append(
            f"{what} in {len(files)} {'file' if len(files) == 1 else 'files'}, first {min(files)}: {meaning}"
        )
    if black := sum(bool(sample.max() < BLACK) for sample in samples):
        warnings.append(f"{black} of {len(samples)} clips that were looked at are black from end to end: remove them")
    moving = [sample for sample in samples if sample.shape[1] > 1 and not sample.max() < BLACK]
    if still := sum(bool(sample.diff(dim=1).abs().mean() < STILL) for sample in moving):
        warnings.append(
            f"little or nothing moves in {still} of {len(samples)} clips that were looked at: a model learns stills "
            "from such; where motion is slow, a lower modality.frame_rate has more of it in a clip"
        )
    if samples and samples[0].shape[0] == 3 and all(bool((sample == sample[:1]).all()) for sample in samples):
        warnings.append(
            f"all {len(samples)} clips that were looked at are grey, and the recipe is in colour: modality.channels=1 "
            "would learn a third of the values"
        )
    return warnings

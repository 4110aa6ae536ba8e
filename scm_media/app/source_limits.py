"""This module refuses files that are too large to be edited here, by their size and their headers alone."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from scm_media.display import byte_size
from scm_media.modality import Modality

MOST_BYTES = 1 << 29
"""A file has at most this many bytes, whatever ``--max-upload`` lets in."""
MOST_PIXELS = 48_000_000
"""A picture has at most this many pixels; phones and cameras make fewer, unless they are asked for more."""
MOST_FRAME_PIXELS = 16 * MOST_PIXELS
"""All frames of an animation have at most this many pixels together, since each is decoded before the next."""
MOST_VALUES = 1 << 26
"""A sound or a clip has at most this many values once it is decoded, of four bytes each."""
REMEDY = "cut it, or use scm-media edit"


def check_source(modality: Modality, file: Path) -> None:
    """Raises ValueError for a file that would take too much memory or time; decodes nothing of it."""
    size = file.stat().st_size if file.is_file() else 0  # the modality says what is missing
    if size > MOST_BYTES:
        raise ValueError(
            f"{file.name} has {byte_size(size)}, a file that is edited here {byte_size(MOST_BYTES)} at most: {REMEDY}"
        )
    _check_picture(file)
    check_length(file, modality.count_values(file))


def check_length(file: Path, values: int | None) -> None:
    """Raises ValueError for a file of more values than are kept here; None stands for a number that is not known."""
    if values is not None and values > MOST_VALUES:
        raise ValueError(
            f"{file.name} is too long to be edited here: decoded it takes {byte_size(4 * values)}, "
            f"{byte_size(4 * MOST_VALUES)} at most: {REMEDY}"
        )


def _check_picture(file: Path) -> None:
    """Raises ValueError for a picture or an animation of too many pixels; other kinds of files pass."""
    try:
        with Image.open(file) as picture:
            (width, height), frames = picture.size, getattr(picture, "n_frames", 1)
    except Image.DecompressionBombError as error:
        raise ValueError(
            f"{file.name} has more than {MOST_PIXELS // 10**6} million pixels, which is too large to be edited here: "
            "make it smaller"
        ) from error
    except Exception:  # whatever Pillow raises of no picture, or of a damaged one: the modality says what is wrong
        return
    if width * height > MOST_PIXELS:
        raise ValueError(
            f"{file.name} has {width}×{height} pixels, {MOST_PIXELS // 10**6} million at most are edited here: "
            "make it smaller"
        )
    if frames * width * height > MOST_FRAME_PIXELS:
        raise ValueError(
            f"{file.name} has {frames} frames of {width}×{height} pixels, {MOST_FRAME_PIXELS // 10**6} million pixels "
            f"at most are edited here: {REMEDY}"
        )

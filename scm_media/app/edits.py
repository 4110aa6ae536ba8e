"""This module turns a way to edit, and an uploaded file as the model gets it, into a request of the pipeline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import ExifTags, Image
from torch import Tensor

from scm_media.app.asking import MOST_TIMES_LARGER
from scm_media.app.source_limits import check_length, check_source
from scm_media.modality import Modality, SizeOption
from scm_media.pipeline import EditRequest, Pipeline, SamplingRequest
from scm_media.pipeline.edit_inputs import read_source
from scm_media.pipeline.edits import TASKS
from scm_media.pipeline.windows import find_axis_option

AREA, STRETCH = "area", "stretch"
"""These two ways say what the task ``inpaint`` makes anew: by a drawn mask, and by a range of time."""
KEEPING = ("continue", "prepend", "interpolate", "animate")
"""These ways keep a part of a file in a new sample; the user may choose the length of both."""
WORDS: Mapping[str, str] = {
    AREA: "Make anew what I draw on",
    STRETCH: "Make a stretch anew",
    "continue": "Continue: its end becomes the start",
    "prepend": "Lead to it: its start becomes the end",
    "interpolate": "Interpolate: start and end are kept",
    "animate": "Set a picture in motion",
}
"""These are the ways to edit, in the order in which they are offered."""
NOUNS: Mapping[str, str] = {
    AREA: "make a drawn area anew",
    STRETCH: "make a stretch of time anew",
    "continue": "continue a file",
    "prepend": "lead to a file",
    "interpolate": "interpolate",
    "animate": "set a picture in motion",
}
LEAST_COVERED = 0.25
"""A pixel is made anew if the brush covers at least this part of it."""


@dataclass(frozen=True, kw_only=True)
class Edit:
    """This is a way to edit with its numbers, in the unit of the model's size option; None or 0 is the task's choice.

    keep: length of the kept part. stretch: its start and end. mask: ``(h, w)``, true where a picture, or each frame of
    a clip, is made anew.
    """

    way: str
    keep: float | None = None
    stretch: tuple[float, float] | None = None
    mask: np.ndarray | None = None

    def request(self, pipeline: Pipeline, source: Path, sampling: SamplingRequest) -> EditRequest:
        """Returns the request; raises ValueError for a way that the model does not have, and for a missing part."""
        if self.way not in find_ways(pipeline):
            raise ValueError(f"{pipeline.name} {describe_missing(pipeline) or f'knows no way to edit {self.way!r}'}")
        if self.way == AREA:
            return EditRequest(task="inpaint", source=source, mask=self._mask(pipeline, source), sampling=sampling)
        if self.way == STRETCH:
            start, end = self.stretch or (0.0, 0.0)
            if not 0 <= start < end:
                raise ValueError(f"a stretch begins before it ends, and at 0 or later: got {start:g} to {end:g}")
            _check_made(pipeline, end - start)
            option = time_option(pipeline.modality)
            length = open_source(pipeline, source).length(option)
            if option is not None and end > length + 1 / option.rate:
                raise ValueError(
                    f"the stretch ends at {end:g} {option.unit}, but the file at {length:g}: choose an earlier end"
                )
            return EditRequest(task="inpaint", source=source, region=(start, end), sampling=sampling)
        assert self.way in TASKS
        return EditRequest(task=self.way, source=source, keep=self.keep or None, sampling=sampling)

    def _mask(self, pipeline: Pipeline, source: Path) -> Tensor:
        """Returns the mask in the shape of the source, above 0 where it is made anew."""
        if self.mask is None or not self.mask.any():
            raise ValueError('nothing is drawn yet: with the brush of "Draw on it", cover what is to be made anew')
        opened = open_source(pipeline, source)
        shape = opened.sample.shape
        _check_made(pipeline, opened.length(time_option(pipeline.modality)))
        if self.mask.shape != shape[-2:]:
            size = "×".join(map(str, reversed(shape[-2:])))
            raise ValueError(f"the drawing belongs to another picture than this one of {size} pixels: draw again")
        return (2.0 * torch.from_numpy(self.mask) - 1).expand(shape)


def _check_made(pipeline: Pipeline, length: float) -> None:
    """Raises ValueError for a stretch that is so long that others would wait for it; 0 for samples without duration."""
    option = time_option(pipeline.modality)
    if option is not None and length > (most := MOST_TIMES_LARGER * option.default):
        raise ValueError(
            f"{length:g} {option.unit} would be made anew, at most {most:g} here: choose less, or use scm-media edit"
        )


def find_ways(pipeline: Pipeline) -> list[str]:
    """Returns the ways to edit that a model has, the first one to be offered first."""
    if not pipeline.folder.has("student"):
        return []
    rank, continued = len(pipeline.modality.shape()), time_option(pipeline.modality) is not None
    able = {
        AREA: rank >= 3,
        STRETCH: continued,
        "continue": continued,
        "prepend": continued,
        "interpolate": continued,
        "animate": continued and rank == 4,
    }
    first = ["continue", "animate"] if rank == 4 else []
    return [way for way in [*first, *(way for way in WORDS if way not in first)] if able[way]]


def describe_missing(pipeline: Pipeline) -> str:
    """Returns what a model cannot do and why, as a sentence that goes on after its name; "" where it can do all."""
    if not pipeline.folder.has("student"):
        return "has no student, which makes edits: distil one, or choose another model"
    ways, reasons = find_ways(pipeline), []
    if STRETCH not in ways:
        timed = ", ".join(NOUNS[way] for way in KEEPING)
        reasons.append(f"{NOUNS[STRETCH]}, {timed} (its samples have no duration)")
    elif "animate" not in ways:
        reasons.append(f"{NOUNS['animate']} (its samples have no frames)")
    if AREA not in ways:
        reasons.append(f"{NOUNS[AREA]} (its samples are no pictures)")
    return f"cannot {' or '.join(reasons)}" if reasons else ""


def time_option(modality: Modality) -> SizeOption | None:
    """Returns the size option along which samples are continued; None where there is none."""
    found = find_axis_option(modality)
    return None if found is None else found[1]


def accepted_suffixes(modality: Modality) -> list[str]:
    """Returns the suffixes of files that can be edited: those of the modality, and single frames for clips."""
    frames = [".png", ".jpg", ".jpeg"] if len(modality.shape()) == 4 else []
    return sorted({*modality.suffixes, *frames})


@dataclass(frozen=True)
class Source:
    """This is an uploaded file as the model gets it: a sample ``(C, *S)``, and in words what was done to it."""

    sample: Tensor
    words: str

    def length(self, option: SizeOption | None) -> float:
        """Returns its length in the unit of a size option; 0 without one."""
        return 0.0 if option is None or option.axis is None else self.sample.shape[option.axis] / option.rate


def open_source(pipeline: Pipeline, file: Path) -> Source:
    """Returns an uploaded file as ``edit`` reads it; raises ValueError for one that the model cannot take.

    What is too large to share the server with others is refused before it is decoded.
    """
    suffixes = accepted_suffixes(pipeline.modality)
    if file.suffix.lower() not in suffixes:
        kind = pipeline.modality.name
        raise ValueError(f"{file.name} is no file of {kind} that can be read; the suffixes are {', '.join(suffixes)}")
    try:
        check_source(pipeline.modality, file)
        sample = read_source(pipeline.modality, file)
        check_length(file, sample.numel())  # of modalities that cannot tell before
    except ValueError as error:  # without the path, which is the server's
        raise ValueError(str(error).replace(str(file), file.name)) from error
    return Source(sample, f"{file.name}: {_describe_file(file)}{_describe_sample(pipeline.modality, sample)}")


def _describe_sample(modality: Modality, sample: Tensor) -> str:
    """Returns in words what the model gets."""
    option, parts = time_option(modality), []
    if sample.ndim >= 3:
        parts.append(f"{sample.shape[-1]}×{sample.shape[-2]} pixels")
        parts.append("in colour" if sample.shape[0] == 3 else "in grey")
    else:
        parts.append("mono" if sample.shape[0] == 1 else "stereo")
    if option is not None and option.axis is not None:
        length = sample.shape[option.axis] / option.rate
        unit = option.unit if length != 1 or not option.unit.endswith("s") else option.unit[:-1]
        parts.append(f"{length:.4g} {unit}")
        if option.rate != 1:
            parts.append(f"{option.rate:g} Hz")
    if (rate := getattr(modality, "frame_rate", None)) is not None:
        parts.append(f"{rate:g} frames/s")
    return f"the model gets {', '.join(parts)}"


def _describe_file(file: Path) -> str:
    """Returns in words how large a file is, with an arrow to what becomes of it; "" where that is not known."""
    words = _describe_picture(file) or _describe_stream(file)
    return f"{words} in the file; " if words else ""


def _describe_picture(file: Path) -> str:
    try:
        with Image.open(file) as picture:
            sides = picture.size[::-1] if picture.getexif().get(ExifTags.Base.Orientation, 1) >= 5 else picture.size
            return f"{sides[0]}×{sides[1]} pixels" if getattr(picture, "n_frames", 1) == 1 else ""
    except (OSError, ValueError, Image.DecompressionBombError):
        return ""


def _describe_stream(file: Path) -> str:
    try:
        import av
    except ImportError:
        return ""
    try:
        with av.open(str(file)) as container:
            seconds = f"{container.duration / av.time_base:.4g} s" if container.duration else ""
            if container.streams.video:
                stream: Any = container.streams.video[0]
                rate = f"{float(stream.average_rate):.4g} frames/s" if stream.average_rate else ""
                return ", ".join(filter(None, (f"{stream.width}×{stream.height} pixels", rate, seconds)))
            if container.streams.audio:
                sound: Any = container.streams.audio[0]
                channels = {1: "mono", 2: "stereo"}.get(sound.channels, f"{sound.channels} channels")
                return ", ".join(filter(None, (channels, f"{sound.rate} Hz", seconds)))
    except (av.FFmpegError, OSError, ValueError):
        pass
    return ""


def drawn_mask(layers: Sequence[np.ndarray], size: tuple[int, int]) -> np.ndarray:
    """Returns which pixels of a picture of ``size`` (height, width) a drawing covers, by a quarter at least.

    layers: the drawing in colours and opacity ``(H, W, 4)``, of any size with the picture's proportions.
    """
    marked = np.zeros(size, dtype=bool)
    for layer in layers:
        if layer is None or layer.ndim != 3 or layer.shape[2] != 4 or not layer.size:
            continue
        opacity = Image.fromarray(((layer[..., 3] > 127) * 255).astype(np.uint8))
        covered = np.asarray(opacity.resize(size[::-1], Image.Resampling.BOX)) / 255
        marked |= covered >= LEAST_COVERED
    return marked


def to_picture(sample: Tensor) -> Image.Image:
    """Returns a picture ``(C, H, W)``, or the first frame of a clip, in colour, for the page to draw on."""
    frame = sample[:, 0] if sample.ndim == 4 else sample
    levels = ((frame.float() + 1) * 127.5).round().clamp(0, 255).byte().movedim(0, -1)
    return Image.fromarray(levels.expand(*levels.shape[:-1], 3).numpy())

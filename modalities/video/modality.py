"""The video modality: it reads files at a recipe's rate, length and size, and writes and previews clips."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from modalities.video.footage import File, Footage, VideoError, name_of, path_of
from modalities.video.frames import Framing, stack_frames
from modalities.video.reading import SUFFIXES, holds_frames, open_footage
from modalities.video.statistics import STATISTIC_UNITS, clip_statistics
from modalities.video.strip import draw_strip
from modalities.video.survey import data_warnings, inspect, suggest_config
from modalities.video.timing import ROUNDING_ERROR, Span, find_span, select_frames
from modalities.video.writing import FORMATS, read_metadata, write_video
from scm_media.drawing import draw_grid
from scm_media.modality import Modality, SizeOption
from scm_media.parts import part

WINDOWS = ("random", "start", "centre")
CROPS = ("random", "centre")
PADDINGS = ("refuse", "hold", "masked")
MAX_VALUES = 1 << 29
"""The most values of a video that is read as a whole: 2 GiB of float32."""
USUAL_RATE = 24.0
"""Frames a second of written clips if the recipe sets no ``frame_rate``."""


@part("modality")
class VideoModality(Modality):
    """Reads, transforms and writes videos of ``num_frames`` frames at ``frame_rate`` a second and ``size`` pixels.

    frame_rate: files of any rate are resampled to it by repeating or leaving out frames; None keeps each file's rate.
    size: the side of a square, or [height, width]. channels: 3 (RGB) or 1 (grey). window: the part of a longer video
    that is used, "start", "centre" or "random" (the centre if ``transform`` has no generator). crop: where a frame is
    cropped after it was resized to cover ``size``, "centre" or "random". flip: mirrors every second clip on average.
    padding: a video that is too short raises ValueError ("refuse"), or its last frame is repeated and takes part in
    the loss ("hold") or not ("masked"). folder_rate: frames a second of folders of pictures (None: ``frame_rate``).
    background: the level behind transparent pixels, in [-1, 1]. quality: the constant rate factor of written MP4 and
    WebM, from 0 (best) to 51.
    """

    name = "video"
    suffixes = SUFFIXES
    written_suffixes = FORMATS
    pipeline_tag = "text-to-video"
    statistic_units = STATISTIC_UNITS
    takes_segments = True
    feature_networks: Mapping[str, Mapping[str, Any]] = {
        # The name says that the network sees single frames: its distance does not measure motion.
        "frames": {
            "_target_": "modalities.video.features.FrameNetwork",
            "network": {"_target_": "modalities.image.imagenet.EfficientNetLite0"},
        }
    }

    def __init__(
        self,
        num_frames: int = 16,
        frame_rate: float | None = 8.0,
        size: int | Sequence[int] = 64,
        channels: int = 3,
        window: str = "random",
        crop: str = "centre",
        flip: bool = False,
        padding: str = "refuse",
        folder_rate: float | None = None,
        background: float = -1.0,
        quality: int = 14,
    ) -> None:
        if num_frames < 1:
            raise ValueError(f"modality.num_frames must be at least 1, got {num_frames}")
        for key, value in (("frame_rate", frame_rate), ("folder_rate", folder_rate)):
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"modality.{key} must be a positive number of frames a second, or null; got {value}")
        self.size = (size, size) if isinstance(size, int) else tuple(size)
        if len(self.size) != 2 or min(self.size) < 1:
            raise ValueError(f"modality.size must be pixels, at least 1, or [height, width]; got {size}")
        if channels not in (1, 3):
            raise ValueError(f"modality.channels must be 1 (grey) or 3 (RGB), got {channels}")
        for key, choice, allowed in (
            ("window", window, WINDOWS),
            ("crop", crop, CROPS),
            ("padding", padding, PADDINGS),
        ):
            if choice not in allowed:
                raise ValueError(f"modality.{key} must be one of {', '.join(allowed)}, got {choice!r}")
        if not -1 <= background <= 1:
            raise ValueError(f"modality.background must lie in [-1, 1] (black to white), got {background}")
        if not 0 <= quality <= 51:
            raise ValueError(f"modality.quality must lie in 0 (best) … 51, got {quality}")
        self.num_frames, self.frame_rate, self.channels = num_frames, frame_rate, channels
        self.window, self.crop, self.flip, self.padding = window, crop, flip, padding
        self.background, self.quality = background, quality
        self.written_rate = frame_rate or USUAL_RATE
        self.folder_rate = folder_rate or self.written_rate
        self._files_by_oddity: dict[str, set[str]] = {}
        self.size_options: Mapping[str, SizeOption] = {
            "frames": SizeOption(num_frames, "frames", "length of a clip", longest=num_frames, axis=-3),
            "fps": SizeOption(
                self.written_rate, "frames/s", "rate of the written clip, and of its motion if fps is a label"
            ),
        }

    @classmethod
    def suggest_config(cls, paths: Sequence[str | Path]) -> tuple[dict[str, Any], str]:
        """Returns keys of a recipe's ``modality`` that fit these files, and a description of the files."""
        return suggest_config(paths)

    def data_warnings(self, samples: Sequence[Tensor]) -> list[str]:
        """Returns warnings about clips ``(C, T, H, W)`` and about the files that were read so far."""
        return data_warnings(samples, self._files_by_oddity)

    def statistics(self, samples: Tensor) -> Mapping[str, Tensor]:
        """Returns motion, the fraction of still frames and flicker of clips; see ``statistics.clip_statistics``."""
        return clip_statistics(samples)

    def is_sample_dir(self, folder: Path) -> bool:
        """Returns whether a folder is one video: it holds pictures, but no videos and no folders."""
        return holds_frames(folder)

    def shape(self, **sizes: float) -> tuple[int, ...]:
        """Returns ``(C, T, H, W)``; raises ValueError for an unknown option. The rate does not change the shape."""
        if unknown := set(sizes) - set(self.size_options):
            raise ValueError(f"videos have no {', '.join(sorted(unknown))}; they have: {', '.join(self.size_options)}")
        frames, rate = sizes.get("frames", self.num_frames), sizes.get("fps", self.written_rate)
        if not 1 <= frames < math.inf or frames != int(frames):
            raise ValueError(f"frames must be a whole number, at least 1, got {frames}")
        if not 0 < rate < math.inf:
            raise ValueError(f"fps must be a positive number of frames a second, got {rate}")
        return (self.channels, int(frames), *self.size)

    @property
    def augments(self) -> bool:
        """Returns whether ``transform`` uses its generator."""
        return self.flip or self.window == "random" or self.crop == "random"

    @property
    def further_augmentations(self) -> Sequence[str]:
        """Returns the settings that would vary samples more."""
        off = {"window": self.window != "random", "crop": self.crop != "random"}
        return [*(["flip=true"] if not self.flip else []), *(f"{key}=random" for key, is_off in off.items() if is_off)]

    def check_actions(self) -> None:
        """Raises ValueError unless clips begin with the first frame of a file or segment and are never flipped.

        The actions of a file have one row for each frame of the clip, at the recipe's rate.
        """
        for key, value, wanted, reason in (
            ("window", self.window, "start", "a clip must begin with its file, since the actions do"),
            ("flip", self.flip, False, "actions may mean left or right, which a flipped clip swaps"),
        ):
            if value != wanted:
                raise ValueError(
                    f"modality.{key}={value} with data.actions: {reason}; set modality.{key}={str(wanted).lower()}"
                )

    def read(self, path: str | Path) -> Tensor:
        """Returns the whole video ``(C, T, H, W)``, float32 in [-1, 1], upright, at the recipe's rate and full size.

        Raises ValueError, in one line with the file's name, if the file is not a video, is damaged or cut short, or
        has more than 2^29 values.
        """
        return self._read_all(Path(path), None)

    def decode(self, content: bytes, source: str) -> Tensor:
        """Returns the whole video of a file's content, as ``read``; a ValueError names the source."""
        file = io.BytesIO(content)
        file.name = source
        return self._read_all(file, None)

    def read_whole(self, path: str | Path) -> Tensor:
        """Returns the whole video ``(C, T, H, W)`` at the recipe's rate and size, cropped centrally."""
        return self._read_all(Path(path), self.size)

    def count_values(self, path: str | Path) -> int:
        """Returns how many values ``read_whole`` returns of a file; raises ValueError as ``read`` for its header."""
        with open_footage(Path(path), self.folder_rate) as footage:
            return find_span(footage, self.frame_rate).num_frames * math.prod(self.size) * self.channels

    def _read_all(self, file: File, size: tuple[int, ...] | None) -> Tensor:
        with open_footage(file, self.folder_rate) as footage:
            span = find_span(footage, self.frame_rate)
            height, width = size or (footage.height, footage.width)
            if span.num_frames * height * width * self.channels > MAX_VALUES:
                raise VideoError(
                    file,
                    "too long",
                    f"has {span.num_frames} frames of {width}×{height}, too many to be read at once: cut it (data.cut)",
                )
            framing = Framing.of(footage.height, footage.width, (height, width), None)
            return self._stack(footage, span, 0.0, span.num_frames, framing)

    def _stack(self, footage: Footage, span: Span, first: float, num: int, framing: Framing) -> Tensor:
        frames = select_frames(footage, span.times(first, num), span.tolerance)
        return stack_frames(footage.file, frames, framing, self.channels, self.background)

    def read_transformed(self, file: File, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor | None]:
        """Returns a clip of a file, and its padding mask ``(1, T, H, W)``; None unless padding is masked.

        It decodes only from the key frame before the clip to the clip's end. Raises ValueError as ``read``, and for
        a file that is too short.
        """
        with open_footage(file, self.folder_rate) as footage:
            self._note_oddities(footage)
            span = self._check_length(file, find_span(footage, self.frame_rate))
            first = self._choose_start(footage, span, generator)
            crop_generator = generator if self.crop == "random" else None
            framing = Framing.of(footage.height, footage.width, self.size, crop_generator)
            clip = self._stack(footage, span, first, min(self.num_frames, span.num_frames), framing)
        return self._flip_and_pad(clip, generator)

    def validate(self, file: File) -> None:
        """Raises ValueError as ``read_transformed`` for a file that cannot be used: see ``survey.inspect``."""
        with open_footage(file, self.folder_rate) as footage:
            span = find_span(footage, self.frame_rate)
            inspect(footage, span, self.folder_rate, self.num_frames)
            self._check_length(file, span)
            self._note_oddities(footage)

    def _note_oddities(self, footage: Footage) -> None:
        """Keeps the file's name under each of its oddities, for ``data_warnings``."""
        path = path_of(footage.file)
        for name in footage.oddities:
            self._files_by_oddity.setdefault(name, set()).add(name_of(footage.file) if path is None else str(path))

    def measure(self, file: File) -> Mapping[str, float]:
        """Returns ``fps``, the distinct frames a second of a clip, and ``seconds``, the duration of the file."""
        with open_footage(file, self.folder_rate) as footage:
            span = find_span(footage, self.frame_rate)
            return {"fps": min(footage.rate, span.rate), "seconds": span.stop - span.start}

    def _check_length(self, file: File, span: Span) -> Span:
        """Returns the span unchanged; raises VideoError if it is too short and padding is refused."""
        if self.padding == "refuse" and span.num_frames < self.num_frames:
            raise VideoError(
                file,
                "too short",
                f"has {span.num_frames} frames at {span.rate:g} a second ({span.stop - span.start:.3g} s), expected at "
                f"least {self.num_frames}: remove it, or set modality.padding=hold",
            )
        return span

    def _choose_start(self, footage: Footage, span: Span, generator: torch.Generator | None) -> float:
        """Returns where a clip starts, in seconds after the start of the span."""
        room = span.num_frames - self.num_frames
        if room <= 0 or self.window == "start":
            return 0.0
        if self.window == "centre" or generator is None:
            return room // 2 / span.rate
        # A random clip may start at any frame of the file, not only at multiples of 1 / rate.
        latest = span.stop - span.start - span.tolerance - (self.num_frames - 1) / span.rate
        num_starts = max(1, math.ceil(latest * footage.rate - ROUNDING_ERROR))
        return int(torch.randint(num_starts, (), generator=generator)) / footage.rate

    def transform(self, sample: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Returns the sample ``(C, T, H, W)`` brought to ``shape()``; only the generator makes it random."""
        if sample.ndim != 4 or sample.shape[0] != self.channels or not sample.numel():
            raise ValueError(f"a video of this recipe is ({self.channels}, T, H, W), got {tuple(sample.shape)}")
        room = sample.shape[1] - self.num_frames
        if room < 0 and self.padding == "refuse":
            raise ValueError(
                f"a video of {sample.shape[1]} frames is too short for clips of {self.num_frames}: set "
                "modality.padding=hold"
            )
        first = 0 if room <= 0 or self.window == "start" else room // 2
        if room > 0 and self.window == "random" and generator is not None:
            first = int(torch.randint(room + 1, (), generator=generator))
        crop_generator = generator if self.crop == "random" else None
        framing = Framing.of(*sample.shape[-2:], self.size, crop_generator)
        return self._flip_and_pad(framing.apply(sample[:, first : first + self.num_frames]), generator)[0]

    def _flip_and_pad(self, clip: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor | None]:
        """Returns a cropped clip, flipped and padded, and its padding mask."""
        if self.flip and generator is not None and bool(torch.rand((), generator=generator) < 0.5):
            clip = clip.flip(-1)
        missing = self.num_frames - clip.shape[1]
        padding_mask = None
        if self.padding == "masked":
            padding_mask = torch.ones(1, self.num_frames, *self.size)
            padding_mask[:, clip.shape[1] :] = 0
        if missing > 0:
            clip = torch.cat([clip, clip[:, -1:].expand(-1, missing, -1, -1)], 1)
        return clip.contiguous(), padding_mask

    def write(self, path: str | Path, sample: Tensor, metadata: Mapping[str, Any]) -> str | None:
        """Writes ``(C, T, H, W)``, whole or not at all, as MP4, WebM or GIF, with the metadata in its comment.

        The rate is the metadata's ``fps``, else the recipe's. Returns a remark if the clip had to be changed (odd
        sides in MP4), else None. Raises ValueError as ``writing.write_video``.
        """
        rate = float(metadata.get("fps", self.written_rate))
        return write_video(Path(path), sample, rate, metadata, self.quality)

    def read_metadata(self, path: str | Path) -> dict[str, Any]:
        """Returns the metadata of a file, empty where there is none; raises ValueError for a file that is no video."""
        return read_metadata(Path(path))

    def preview(self, samples: Tensor, captions: Sequence[str] = (), columns: int | None = None) -> Image.Image:
        """Returns a grid of film strips with captions, one for each of samples ``(B, C, T, H, W)``."""
        return draw_grid([draw_strip(sample) for sample in samples], captions, columns or 1)

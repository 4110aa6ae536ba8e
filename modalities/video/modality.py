"""Videos: reading, bringing to a recipe's rate, length and size, writing with metadata inside, showing many at once."""

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
from modalities.video.reading import SUFFIXES, holds_frames, opened
from modalities.video.strip import draw_strip
from modalities.video.survey import data_warnings, inspect, suggest_config
from modalities.video.timing import TIE, Span, shown_at, span_of
from modalities.video.writing import FORMATS, write_video
from scm_media.drawing import draw_grid
from scm_media.modality import Modality, SizeOption
from scm_media.parts import part

WINDOWS = ("random", "start", "centre")
CROPS = ("random", "centre")
PADDINGS = ("refuse", "hold", "masked")
MOST_VALUES = 1 << 29
"""Of a video that is read as a whole: 2 GiB of float32."""
USUAL_RATE = 24.0
"""Frames a second of clips whose rate is each file's own, where they are written and nothing else is asked for."""


@part("modality")
class VideoModality(Modality):
    """Videos of ``num_frames`` frames at ``frame_rate`` a second, ``size`` pixels (both sides, or height and width).

    frame_rate: a clip's frames are those shown at its times, whatever the file's rate is and however it varies; None
    takes each file's own rate. channels: 3 (RGB) or 1 (grey). window: which part of a longer video is taken, "random"
    (needs the generator that ``transform`` is given; without one it is the centre), "start" or "centre". crop: the
    shorter side is brought to ``size``, what the other has more is cut off, "random" or "centre". flip: left and right
    swapped, half of the time. padding: a shorter video is refused ("refuse"), or its last frame is held, which is
    learned ("hold") or not ("masked": those frames are told as padding). folder_rate: frames a second of folders of
    pictures (None: ``frame_rate``). background: what shows through transparency, in [-1, 1]. quality: of MP4 and WebM
    that are written, the constant rate factor: 0 (best) to 51.
    """

    name = "video"
    suffixes = SUFFIXES
    written_suffixes = FORMATS
    pipeline_tag = "text-to-video"
    takes_segments = True
    feature_networks: Mapping[str, Mapping[str, Any]] = {
        # Named as what it is: blind to the order of frames, so no measure of motion.
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
        for key, word, known in (("window", window, WINDOWS), ("crop", crop, CROPS), ("padding", padding, PADDINGS)):
            if word not in known:
                raise ValueError(f"modality.{key} must be one of {', '.join(known)}, got {word!r}")
        if not -1 <= background <= 1:
            raise ValueError(f"modality.background must lie in [-1, 1] (black to white), got {background}")
        if not 0 <= quality <= 51:
            raise ValueError(f"modality.quality must lie in 0 (best) … 51, got {quality}")
        self.num_frames, self.frame_rate, self.channels = num_frames, frame_rate, channels
        self.window, self.crop, self.flip, self.padding = window, crop, flip, padding
        self.background, self.quality = background, quality
        self.written_rate = frame_rate or USUAL_RATE
        self.folder_rate = folder_rate or self.written_rate
        self._odd: dict[str, set[str]] = {}
        self.size_options: Mapping[str, SizeOption] = {
            "frames": SizeOption(num_frames, "frames", "length of a clip", longest=num_frames, axis=-3),
            "fps": SizeOption(
                self.written_rate, "frames/s", "rate that a clip is written at, and made for where it is a label"
            ),
        }

    @classmethod
    def suggest_config(cls, paths: Sequence[str | Path]) -> tuple[dict[str, Any], str]:
        """Keys of a recipe's ``modality`` that fit these files, and what was seen in them; see
        ``survey.suggest_config``."""
        return suggest_config(paths)

    def data_warnings(self, samples: Sequence[Tensor]) -> list[str]:
        """Returns what somebody who looks at data should be told of clips ``(C, T, H, W)`` and of the files so far."""
        return data_warnings(samples, self._odd)

    def is_sample_dir(self, folder: Path) -> bool:
        """Whether a folder is one video: pictures, and neither videos nor folders beside them."""
        return holds_frames(folder)

    def shape(self, **sizes: float) -> tuple[int, ...]:
        """``(C, T, H, W)``; ValueError for an extent that videos do not have. The rate changes no shape."""
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
        """Whether ``transform`` makes use of its generator."""
        return self.flip or self.window == "random" or self.crop == "random"

    def check_actions(self) -> None:
        """ValueError where clips are not their file's (or part's) frames from the first on, left and right as filmed.

        Rows of numbers are one for each frame of the clip, at the recipe's rate.
        """
        for key, value, wanted in (("window", self.window, "start"), ("flip", self.flip, False)):
            if value != wanted:
                raise ValueError(
                    f"modality.{key}={value} with data.actions: the numbers of a file's frames, from the first on, "
                    f"would lie beside other frames, or say left for right; set modality.{key}={str(wanted).lower()}"
                )

    def read(self, path: str | Path) -> Tensor:
        """The whole video ``(C, T, H, W)``, float32 in [-1, 1], upright, at the recipe's rate, as large as in the file.

        Raises ValueError, in one line with the file's name, for what is no video, is damaged or cut short, and for one
        of more than 2^29 values.
        """
        return self._whole(Path(path), None)

    def decode(self, content: bytes, source: str) -> Tensor:
        """The whole video of a file's content, as ``read``; ValueError that names the source."""
        file = io.BytesIO(content)
        file.name = source
        return self._whole(file, None)

    def read_whole(self, path: str | Path) -> Tensor:
        """The whole video ``(C, T, H, W)`` at the recipe's rate and size, cropped centrally; a picture is one frame."""
        return self._whole(Path(path), self.size)

    def _whole(self, file: File, size: tuple[int, ...] | None) -> Tensor:
        with opened(file, self.folder_rate) as footage:
            span = span_of(footage, self.frame_rate)
            height, width = size or (footage.height, footage.width)
            if span.num_frames * height * width * self.channels > MOST_VALUES:
                raise VideoError(
                    file,
                    "too long",
                    f"has {span.num_frames} frames of {width}×{height}, too many to be read at once: cut it (data.cut)",
                )
            framing = Framing.of(footage.height, footage.width, (height, width), None)
            return self._stack(footage, span, 0.0, span.num_frames, framing)

    def _stack(self, footage: Footage, span: Span, first: float, num: int, framing: Framing) -> Tensor:
        frames = shown_at(footage, span.times(first, num), span.tolerance)
        return stack_frames(footage.file, frames, framing, self.channels, self.background)

    def read_transformed(self, file: File, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor | None]:
        """The clip of a file, and its mask ``(1, T, H, W)``, one where it is no padding; None unless that is masked.

        No more of the file is decoded than from the key frame before the clip to its end; where the window is random it
        may begin at any frame of the file. Raises ValueError as ``read``, and where the file is too short.
        """
        with opened(file, self.folder_rate) as footage:
            self._note(footage)
            span = self._checked(file, span_of(footage, self.frame_rate))
            first = self._place(footage, span, generator)
            own = generator if self.crop == "random" else None
            framing = Framing.of(footage.height, footage.width, self.size, own)
            clip = self._stack(footage, span, first, min(self.num_frames, span.num_frames), framing)
        return self._finished(clip, generator)

    def validate(self, file: File) -> None:
        """Raises ValueError as ``read_transformed`` for a file that cannot be used: see ``survey.inspect``."""
        with opened(file, self.folder_rate) as footage:
            span = span_of(footage, self.frame_rate)
            inspect(footage, span, self.folder_rate, self.num_frames)
            self._checked(file, span)
            self._note(footage)

    def _note(self, footage: Footage) -> None:
        """Keeps the name of a file that ``data_warnings`` has something to say about."""
        path = path_of(footage.file)
        for name in footage.oddities:
            self._odd.setdefault(name, set()).add(name_of(footage.file) if path is None else str(path))

    def measure(self, file: File) -> Mapping[str, float]:
        """``fps``: different frames a second of a clip of this file; ``seconds``: how long the file (or part) is."""
        with opened(file, self.folder_rate) as footage:
            span = span_of(footage, self.frame_rate)
            return {"fps": min(footage.rate, span.rate), "seconds": span.stop - span.start}

    def _checked(self, file: File, span: Span) -> Span:
        """The span; VideoError where it is too short for a clip and may not be."""
        if self.padding == "refuse" and span.num_frames < self.num_frames:
            raise VideoError(
                file,
                "too short",
                f"has {span.num_frames} frames at {span.rate:g} a second ({span.stop - span.start:.3g} s), expected at "
                f"least {self.num_frames}: take it away, or set modality.padding=hold",
            )
        return span

    def _place(self, footage: Footage, span: Span, generator: torch.Generator | None) -> float:
        """Seconds into the span at which a clip begins."""
        room = span.num_frames - self.num_frames
        if room <= 0 or self.window == "start":
            return 0.0
        if self.window == "centre" or generator is None:
            return room // 2 / span.rate
        # At any frame of the file, not only at those which the recipe's rate counted from its start would meet.
        latest = span.stop - span.start - span.tolerance - (self.num_frames - 1) / span.rate
        num_places = max(1, math.ceil(latest * footage.rate - TIE))
        return int(torch.randint(num_places, (), generator=generator)) / footage.rate

    def transform(self, sample: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The sample ``(C, T, H, W)``, at the recipe's rate, brought to ``shape()``; random by the generator alone."""
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
        own = generator if self.crop == "random" else None
        framing = Framing.of(*sample.shape[-2:], self.size, own)
        return self._finished(framing.apply(sample[:, first : first + self.num_frames]), generator)[0]

    def _finished(self, clip: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor | None]:
        """A framed clip, flipped and padded, and its mask."""
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

        It is written at the rate that the metadata give as ``fps``, else at the recipe's. Returns what had to be
        changed of it (odd sides in MP4), else None. Raises ValueError as ``writing.write_video``.
        """
        rate = float(metadata.get("fps", self.written_rate))
        return write_video(Path(path), sample, rate, metadata, self.quality)

    def preview(self, samples: Tensor, captions: Sequence[str] = (), columns: int | None = None) -> Image.Image:
        """A film strip for each of samples ``(B, C, T, H, W)``, captions below; ``columns`` of them side by side."""
        return draw_grid([draw_strip(sample) for sample in samples], captions, columns or 1)

"""The modality of sounds: reads, resamples, crops, writes and draws them."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from modalities.audio.cropping import find_sounding_part, read_ends
from modalities.audio.levels import MAX_GAIN, NORMALISATIONS, amplify, find_sound, limit_peak, normalise_level
from modalities.audio.reading import SUFFIXES, num_frames, open_recording, read_window
from modalities.audio.recording import File, Recording, SoundError
from modalities.audio.sheet import draw_sheet
from modalities.audio.statistics import STATISTIC_UNITS, sound_statistics
from modalities.audio.survey import data_warnings, suggest_config
from modalities.audio.writing import BITS, FORMATS, read_metadata, write_sound
from scm_media.modality import Modality, SizeOption
from scm_media.parts import part
from scm_media.pipeline.blending import crossfade

CROPS = ("random", "start", "centre")
PADDINGS = ("silence", "masked")
HIGHEST_RATE = 384_000
LONGEST = 3600.0
"""Seconds beyond which a file is not read as a whole, only in crops."""
FADE = 0.01
"""Seconds of the crossfade from the given part of an edit to the generated one."""


@part("modality")
class AudioModality(Modality):
    """Handles sounds of one (mono) or two (stereo) channels at one sampling rate, ``duration`` seconds long.

    sample_rate: in Hz; files of any rate are resampled to it. multiple: the number of samples is the positive multiple
    of it that is nearest to the duration, since front ends need whole frames. crop: the part of a longer sound that is
    taken, "random" (the centre if ``transform`` gets no generator), "start" or "centre". A shorter sound is followed by
    zeros; padding "masked" also returns a mask of them, so that no network learns them, "silence" does not. trim: None,
    or the level in dB below a file's loudest frame under which its ends are cut off as silence. normalise: None, "peak"
    or "loudness" (ITU-R BS.1770-4) of each sample after it is cropped, at ``level`` dBFS or LUFS (None: −1 or −23), by
    at most 40 dB. shortest: files with fewer seconds are refused; front ends need a few hops. bits: of WAV and FLAC
    that are written, 16, 24 or 32. gain: dB by which ``transform``, given a generator, makes a sample louder or softer
    at most, after it is normalised; it draws uniformly, and no louder than to a peak of 1.

    One channel is repeated for stereo, several are averaged for mono; other numbers than the recipe's are refused.
    """

    name = "audio"
    suffixes = SUFFIXES
    written_suffixes = tuple(FORMATS)
    pipeline_tag = "text-to-audio"
    statistic_units = STATISTIC_UNITS

    def __init__(
        self,
        sample_rate: int = 22050,
        duration: float = 1.0,
        channels: int = 1,
        multiple: int = 1,
        crop: str = "random",
        padding: str = "silence",
        trim: float | None = None,
        normalise: str | None = None,
        level: float | None = None,
        shortest: float = 0.02,
        bits: int = 16,
        gain: float = 0.0,
    ) -> None:
        if not 1 <= sample_rate <= HIGHEST_RATE:
            raise ValueError(f"modality.sample_rate must lie in 1 … {HIGHEST_RATE} Hz, got {sample_rate}")
        if channels not in (1, 2):
            raise ValueError(f"modality.channels must be 1 (mono) or 2 (stereo), got {channels}")
        if multiple < 1:
            raise ValueError(f"modality.multiple must be at least 1 sample, got {multiple}")
        for key, value, known in (("crop", crop, CROPS), ("padding", padding, PADDINGS), ("bits", bits, BITS)):
            if value not in known:
                raise ValueError(f"modality.{key} must be one of {', '.join(map(str, known))}, got {value!r}")
        if normalise is not None and normalise not in NORMALISATIONS:
            raise ValueError(f"modality.normalise must be null, {' or '.join(NORMALISATIONS)}, got {normalise!r}")
        if level is not None and (normalise is None or not level <= 0):
            raise ValueError(f"modality.level must be at most 0, and needs modality.normalise; got {level}")
        if trim is not None and not trim > 0:
            raise ValueError(f"modality.trim must be positive (dB below the loudest), or null; got {trim}")
        self.sample_rate, self.channels, self.multiple = sample_rate, channels, multiple
        self.crop, self.padding, self.trim, self.bits = crop, padding, trim, bits
        if not 0 <= shortest < math.inf:
            raise ValueError(f"modality.shortest must be a number of seconds, at least 0, got {shortest}")
        if not 0 <= gain <= MAX_GAIN:
            raise ValueError(f"modality.gain must lie in 0 … {MAX_GAIN:g} dB, got {gain}")
        self.normalise, self.shortest, self.gain = normalise, shortest, gain
        self.level = NORMALISATIONS.get(normalise or "") if level is None else level
        self.size_options: Mapping[str, SizeOption] = {
            "duration": SizeOption(duration, "seconds", "length of a clip", longest=duration, axis=-1, rate=sample_rate)
        }
        self.num_samples = self.shape()[1]
        self.feature_networks = {"aisfx": {"_target_": "modalities.audio.aisfx.AiSFX", "sample_rate": sample_rate}}

    @classmethod
    def suggest_config(cls, paths: Sequence[str | Path]) -> tuple[dict[str, Any], str]:
        """Returns keys that fit these files, and a sentence about them; see ``survey.suggest_config``."""
        return suggest_config(paths)

    def data_warnings(self, samples: Sequence[Tensor]) -> list[str]:
        """Returns warnings about samples ``(C, T)``; see ``survey.data_warnings``."""
        return data_warnings(samples, self.sample_rate)

    def statistics(self, samples: Tensor) -> Mapping[str, Tensor]:
        """Returns pitch, onsets, loudness and centroid of sounds; see ``statistics.sound_statistics``."""
        return sound_statistics(samples, self.sample_rate)

    def shape(self, **sizes: float) -> tuple[int, ...]:
        """Returns ``(channels, T)``, T a multiple of ``multiple``; raises ValueError for an unknown size."""
        if unknown := set(sizes) - set(self.size_options):
            raise ValueError(f"sounds have no {', '.join(sorted(unknown))}; they have: {', '.join(self.size_options)}")
        duration = sizes.get("duration", self.size_options["duration"].default)
        if not 0 < duration < math.inf:
            raise ValueError(f"duration must be a positive number of seconds, got {duration}")
        return (self.channels, max(1, round(duration * self.sample_rate / self.multiple)) * self.multiple)

    @property
    def augments(self) -> bool:
        """Returns true if ``transform`` uses its generator."""
        return self.crop == "random" or self.gain > 0

    @property
    def further_augmentations(self) -> Sequence[str]:
        """Returns the settings that would vary samples more."""
        off = {"crop=random": self.crop != "random", "gain=6": self.gain == 0}
        return [setting for setting, is_off in off.items() if is_off]

    def read(self, path: str | Path) -> Tensor:
        """Returns the whole sound ``(channels, T)``, float32 in [-1, 1], at the recipe's rate.

        Raises ValueError, in one line with the file's name, for what is no sound, is cut short, holds samples that are
        not finite, is shorter than ``shortest`` or longer than an hour.
        """
        return self._read_all(path)

    def decode(self, content: bytes, source: str) -> Tensor:
        """Returns the whole sound of a file's content, as ``read``; errors name the source."""
        return self._read_all(_name_content(content, source))

    def count_values(self, path: str | Path) -> int:
        """Returns how many values a whole sound has, at the file's rate and channels or the recipe's, if they are more.

        Raises ValueError as ``read`` for a file whose header says that it is no sound.
        """
        with open_recording(path) as recording:
            resampled = num_frames(recording.frames, recording.rate, self.sample_rate)
            return max(recording.frames * recording.channels, resampled * self.channels)

    def _read_all(self, file: File) -> Tensor:
        with open_recording(file) as recording:
            total = self._count_samples(recording, recording.frames)
            if (seconds := recording.frames / recording.rate) > LONGEST:
                raise SoundError(
                    file, "too long", f"is {seconds / 60:.0f} minutes long; at most {LONGEST / 60:.0f} are read at once"
                )
            return limit_peak(self._to_channels(read_window(recording, self.sample_rate, 0, total)))[0]

    def read_transformed(self, file: File, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor | None]:
        """Returns the transformed sample of a file and its mask ``(1, T)``; reads only the sample's part of the file.

        The mask is one where the sample is not padding; None if padding is "silence". Raises ValueError as ``read``.
        """
        with open_recording(file) as recording:
            first, last = find_sounding_part(recording, self.trim)
            total = self._count_samples(recording, last - first)
            start = self._choose_start(total, generator)
            stop = min(total, start + self.num_samples)
            window = read_window(recording, self.sample_rate, start, stop, origin=first)
        return self._finish(self._to_channels(window), generator)

    def validate(self, file: File) -> None:
        """Raises ValueError as ``read`` for a file that cannot be used, by its header, its first and its last 15 s.

        A file shorter than 30 s is decoded whole. A value that is not finite in the middle of a longer one is found
        when it is read.
        """
        with open_recording(file) as recording:
            self._count_samples(recording, recording.frames)
            if self.trim is None:
                read_ends(recording)
            else:
                first, last = find_sounding_part(recording, self.trim)
                self._count_samples(recording, last - first)

    def measure(self, file: File) -> Mapping[str, float]:
        """Returns ``seconds``, the length of the sound in a sample of this file, by header (and ends, with trim)."""
        with open_recording(file) as recording:
            first, last = find_sounding_part(recording, self.trim)
            return {"seconds": min((last - first) / recording.rate, self.num_samples / self.sample_rate)}

    def _count_samples(self, recording: Recording, frames: int) -> int:
        """Returns the number of samples at the recipe's rate; raises SoundError if the recording does not fit it."""
        if recording.channels not in (1, self.channels) and self.channels != 1:
            detail = (
                f"has {recording.channels} channels, the recipe {self.channels}: which of them belong left and right "
                "is not known; mix it down, or set modality.channels=1 (their mean)"
            )
            raise SoundError(recording.file, "channels", detail)
        total = num_frames(frames, recording.rate, self.sample_rate)
        least = min(self.shortest, self.num_samples / self.sample_rate)
        if total < round(least * self.sample_rate):
            length = f"{1000 * frames / recording.rate:.3g} ms long, expected at least {1000 * least:.3g} ms"
            raise SoundError(recording.file, "too short", f"is {length}: take it away, or lower modality.shortest")
        return total

    def transform(self, sample: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Returns the sample ``(C, T)``, at the recipe's rate, in ``shape()``; random only through the generator."""
        if sample.ndim != 2 or (sample.shape[0] not in (1, self.channels) and self.channels != 1):
            raise ValueError(f"a sound of this recipe is ({self.channels}, T), got {tuple(sample.shape)}")
        first, last = (0, sample.shape[1]) if self.trim is None else find_sound(sample, self.trim)
        start = first + self._choose_start(last - first, generator)
        return self._finish(self._to_channels(sample[:, start : min(last, start + self.num_samples)]), generator)[0]

    def _to_channels(self, sample: Tensor) -> Tensor:
        if sample.shape[0] == self.channels:
            return sample
        return sample.mean(0, keepdim=True) if self.channels == 1 else sample.expand(self.channels, -1)

    def _choose_start(self, total: int, generator: torch.Generator | None) -> int:
        """Returns the index of the first of ``total`` samples that is taken."""
        room = total - self.num_samples
        if room <= 0 or self.crop == "start":
            return 0
        if self.crop == "random" and generator is not None:
            return int(torch.randint(room + 1, (), generator=generator))
        return room // 2

    def _finish(self, sample: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor | None]:
        """Returns a cropped sample, limited, normalised, amplified and padded, and its mask."""
        sample, _ = limit_peak(sample)
        if self.normalise is not None and self.level is not None and sample.shape[1]:
            sample = normalise_level(sample, self.sample_rate, self.normalise, self.level)
        if self.gain and generator is not None:
            sample = amplify(sample, self.gain, torch.rand((), generator=generator).item())
        frame = (0, self.num_samples - sample.shape[1])
        padding_mask = None if self.padding == "silence" else functional.pad(torch.ones(1, sample.shape[1]), frame)
        return functional.pad(sample, frame).contiguous(), padding_mask

    def write(self, path: str | Path, sample: Tensor, metadata: Mapping[str, Any]) -> str | None:
        """Writes ``(C, T)``, whole or not at all, as WAV, FLAC, OGG (Vorbis) or MP3, with the metadata as its comment.

        Returns a sentence if its peak was above 1 and had to be limited, else None. Raises ValueError for another
        suffix, for samples that are not finite, and for a rate that MP3 does not have.
        """
        return write_sound(Path(path), sample, self.sample_rate, self.bits, metadata)

    def blend(self, given: Tensor, made: Tensor, mask: Tensor) -> Tensor:
        """Returns the given sounds ``(B, C, T)`` where mask ``(B, 1, T)`` is one, the made ones elsewhere.

        The last 10 ms before each border fade into the made ones: a jump would click.
        """
        return crossfade(given, made, mask, round(FADE * self.sample_rate))

    def read_metadata(self, path: str | Path) -> dict[str, Any]:
        """Returns the metadata of a file, empty where there is none; raises ValueError for a file that is no sound."""
        return read_metadata(Path(path))

    def preview(self, samples: Tensor, captions: Sequence[str] = (), columns: int | None = None) -> Image.Image:
        """Returns a grid of mel spectrograms of samples ``(B, C, T)``; see ``draw_sheet``."""
        return draw_sheet(samples, self.sample_rate, captions, columns)


def _name_content(content: bytes, source: str) -> io.BytesIO:
    file = io.BytesIO(content)
    file.name = source  # by which errors call it, and its suffix is known
    return file

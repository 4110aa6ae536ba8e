"""Sound files of every kind: opened without being read, and read from any place on.

libsndfile (soundfile) comes first: it is fast, and exact to the frame wherever it seeks. What it refuses (M4A, AAC,
G.722, WMA …) goes to FFmpeg (PyAV, in ``containers.py``).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Protocol

import numpy as np
import soundfile
import soxr
import torch
from torch import Tensor

File = str | Path | IO[bytes]
"""A sound on a disk, or the content of one; the name of the latter, if it has one, tells the suffix."""

LIBSNDFILE = frozenset(
    {
        ".wav",
        ".wave",
        ".rf64",
        ".w64",
        ".aif",
        ".aiff",
        ".aifc",
        ".au",
        ".caf",
        ".flac",
        ".ogg",
        ".oga",
        ".opus",
        ".mp3",
    }
)
FFMPEG = frozenset({".m4a", ".aac", ".g722", ".wma"})
SUFFIXES = LIBSNDFILE | FFMPEG

MARGIN = 256
"""Frames of the slower rate on either side of a window, beyond which soxr's filter (HQ) does not reach."""


PREROLL = 0.5
"""Seconds that MP3 and Opus are decoded before a window: their first frames after a jump lean on earlier ones (an
MP3's reservoir of bits reaches back half a second at the lowest bit rates)."""

IN_WORDS = {
    "SF_INFO struct incomplete": "its header gives a sample rate of 0 Hz, or no channels",
    "File does not exist or is not a regular file (possibly a pipe?)": "no frame of sound is in it",
}
"""What libsndfile says and nobody would understand."""


class SoundError(ValueError):
    """What is wrong with a sound, in one line; ``reason`` is what it is counted by among the rejects of a dataset."""

    def __init__(self, file: File, reason: str, detail: str) -> None:
        super().__init__(f"{name_of(file)} {detail}")
        self.reason = reason


class Recording(Protocol):
    """An opened file: ``frames`` samples a channel at ``rate`` Hz."""

    file: File
    rate: int
    channels: int
    frames: int

    def read(self, start: int, stop: int) -> np.ndarray:
        """Frames ``start`` to ``stop``, ``(n, channels)`` float32; fewer where the file is cut short."""
        ...

    def close(self) -> None:
        """Lets go of the file."""
        ...


class SoundFileRecording:
    """A recording that libsndfile reads. Raises RuntimeError where it does not."""

    def __init__(self, file: File) -> None:
        self.file = file
        self._sound = soundfile.SoundFile(str(file) if isinstance(file, str | Path) else file)
        self.rate, self.channels, self.frames = self._sound.samplerate, self._sound.channels, self._sound.frames
        leans = self._sound.format == "MP3" or self._sound.subtype == "OPUS"
        self._preroll = round(PREROLL * self.rate) if leans else 0

    def read(self, start: int, stop: int) -> np.ndarray:
        """As ``Recording.read``."""
        first = max(0, start - self._preroll)
        try:
            self._sound.seek(first)
            return self._sound.read(stop - first, dtype="float32", always_2d=True)[start - first :]
        except RuntimeError:  # what libsndfile says of a FLAC that ends too early
            return np.empty((0, self.channels), np.float32)

    def close(self) -> None:
        """As ``Recording.close``."""
        self._sound.close()


def name_of(file: File) -> str:
    """The file, in words for the user."""
    return str(file) if isinstance(file, str | Path) else getattr(file, "name", "the sound")


@contextmanager
def opened(file: File) -> Iterator[Recording]:
    """The recording of a file, not yet read. Raises SoundError for one that is missing, empty or no sound."""
    if isinstance(file, str | Path):
        if not Path(file).is_file():
            raise SoundError(file, "missing file", "is no file: check its name")
        size = Path(file).stat().st_size
    else:
        size = file.seek(0, 2)
        file.seek(0)
    if size == 0:
        raise SoundError(file, "empty", "is empty (0 bytes): fetch or record it again")
    recording = _open(file)
    try:
        if recording.rate < 1 or recording.channels < 1:
            raise SoundError(
                file,
                "damaged header",
                f"has a sample rate of {recording.rate} Hz and {recording.channels} channels in its header, expected "
                "at least 1 of both: write it again",
            )
        if recording.frames < 1:
            raise SoundError(file, "empty", "holds no samples (0 s): record it again, or take it away")
        yield recording
    finally:
        recording.close()


def _open(file: File) -> Recording:
    # Raw G.722 has no header, so that any bytes could be some: its suffix alone tells.
    refused = ""
    if Path(name_of(file)).suffix.lower() not in FFMPEG:
        try:
            return SoundFileRecording(file)
        except RuntimeError as error:
            said = str(error).rpartition(": ")[2].rstrip(".")
            refused = IN_WORDS.get(said, said)
        except ValueError:
            # A rate or a number of channels that no sound has; FFmpeg's header tells which.
            refused = "its header is damaged"
    from modalities.audio.containers import ContainerRecording

    return ContainerRecording(file, refused)


def num_frames(frames: int, rate: int, wanted: int) -> int:
    """How many samples a channel so many frames at ``rate`` Hz are at the wanted rate."""
    return max(1, round(frames * wanted / rate))


def read_window(recording: Recording, rate: int, start: int, stop: int, origin: int = 0) -> Tensor:
    """Samples ``start`` to ``stop`` ``(channels, stop − start)`` of what a recording is at ``rate`` Hz, float32.

    origin: the frame of the recording that sample 0 is. No more is read than the window and the filter's reach; the
    window is the same as that of the whole recording resampled (to 1e-6 of full scale). soxr is band-limited (its
    quality HQ passes 91 % of the lower Nyquist frequency, and nothing above it by more than −100 dB), fast, and takes
    any ratio of rates, where a polyphase filter of two rates without a common divisor would be as large as their
    product. Raises SoundError for samples that are not finite, and for a file that is cut short.
    """
    divisor = math.gcd(recording.rate, rate)
    up, down = rate // divisor, recording.rate // divisor
    margin = 0 if up == down else math.ceil(MARGIN * max(1.0, recording.rate / rate))
    # Sample j · up is at frame j · down exactly: windows begin there, so that their phases are the whole's.
    block = max(0, start // up - math.ceil(margin / down))
    first = origin + block * down
    last = min(recording.frames, origin + math.ceil(stop * down / up) + margin)
    frames = read_frames(recording, first, last)
    if up != down:
        frames = soxr.resample(frames, recording.rate, rate, quality="HQ")
    offset = start - block * up
    frames = frames[offset : offset + stop - start]
    # Rounding may leave the resampler one sample short of the whole's end.
    frames = np.pad(frames, ((0, stop - start - len(frames)), (0, 0)), mode="edge")
    return torch.from_numpy(np.ascontiguousarray(frames.T))


def read_frames(recording: Recording, start: int, stop: int) -> np.ndarray:
    """Frames ``start`` to ``stop``, ``(n, channels)``; SoundError where some are missing or not finite."""
    frames = recording.read(start, stop)
    if len(frames) < stop - start:
        raise SoundError(
            recording.file,
            "cut short",
            f"is cut short or damaged: its header promises {recording.frames / recording.rate:.2f} s, but not all of "
            f"{start / recording.rate:.2f} to {stop / recording.rate:.2f} s can be decoded; fetch it again",
        )
    if not np.isfinite(frames).all():
        place = start + int(np.flatnonzero(~np.isfinite(frames).all(1))[0])
        raise SoundError(
            recording.file,
            "samples that are not finite",
            f"holds samples that are not finite (NaN or infinity), the first at {place / recording.rate:.3f} s: "
            "write it again",
        )
    return frames

"""Opens sound files of every kind without reading them, and reads windows of them at any sampling rate.

libsndfile (soundfile) comes first: it is fast, and its seeks are exact to the frame. FFmpeg (PyAV, in
``containers.py``) reads files that libsndfile refuses (M4A, AAC, G.722, WMA …), cannot seek in, or has no reliable
length of, and MP3: libmpg123 estimates the length of files without a tag, and prints its complaints.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
import soundfile
import soxr
import torch
from torch import Tensor

from modalities.audio.mp3 import is_frame
from modalities.audio.ogg import ChainedRecording, chain_links, last_page_begin, link_contents
from modalities.audio.recording import File, Recording, SoundError, content_of, decoder_errors, suffix_of

LIBSNDFILE = frozenset(
    {".wav", ".wave", ".rf64", ".w64", ".aif", ".aiff", ".aifc", ".au", ".caf", ".flac", ".ogg", ".oga", ".opus"}
)
FFMPEG = frozenset({".mp3", ".m4a", ".aac", ".g722", ".wma"})
SUFFIXES = LIBSNDFILE | FFMPEG

MARGIN = 256
"""Frames of the lower rate on either side of a window, more than the length of soxr's filter (HQ)."""

PREROLL = 1.0
"""Seconds of Opus that are decoded before a window: its first frames after a jump depend on earlier ones."""
MAX_FRAMES = 1 << 48
"""Frames beyond which a length is unknown: libsndfile gives 2⁶³ − 1 for a FLAC whose header leaves it open."""

EXPLANATIONS = {
    "SF_INFO struct incomplete": "its header gives a sample rate of 0 Hz, or no channels",
    "File does not exist or is not a regular file (possibly a pipe?)": "no frame of sound is in it",
}
"""Plain words for messages of libsndfile."""


class SeekSafeFile:
    """Wraps a file in memory so that seeks to impossible offsets, as damaged headers cause them, go to the start.

    soundfile would print an exception with a traceback, and go on.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.read, self.tell = file.read, file.tell
        if hasattr(file, "readinto"):
            self.readinto = file.readinto

    def seek(self, offset: int, whence: int = 0) -> int:
        """Moves to an offset as ``io.IOBase.seek`` does; returns the new position."""
        try:
            return self._file.seek(offset, whence)
        except (ValueError, OSError, OverflowError):
            return self._file.seek(0)


class SoundFileRecording:
    """Reads a file with libsndfile. Raises RuntimeError if libsndfile cannot.

    In Ogg Vorbis libsndfile seeks to the right sample only in a file that was just opened, and not within the last
    page: it counts back from the end of a page, and the last page's end is not that of its samples. Therefore the file
    is opened again for each window, and its last page is reached from the one before.
    """

    def __init__(self, file: File) -> None:
        self.file = file
        self._sound = self._open()
        self.rate, self.channels, self.frames = self._sound.samplerate, self._sound.channels, self._sound.frames
        self._preroll = round(PREROLL * self.rate) if self._sound.subtype == "OPUS" else 0
        self._vorbis, self._untouched = self._sound.subtype == "VORBIS", True
        self._last_jump = last_page_begin(file) - 1 if self._vorbis else self.frames

    def _open(self) -> soundfile.SoundFile:
        file = self.file
        if isinstance(file, str | Path):
            return soundfile.SoundFile(str(file))
        file.seek(0)
        return soundfile.SoundFile(SeekSafeFile(file))

    @property
    def trustworthy(self) -> bool:
        """Returns true if the length is reliable and any frame can be reached."""
        mpeg = self._sound.subtype.startswith("MPEG")
        return self._sound.seekable() and not mpeg and 0 < self.frames < MAX_FRAMES

    def read(self, start: int, stop: int) -> np.ndarray:
        """Returns frames as ``Recording.read``."""
        first = max(0, min(start - self._preroll, self._last_jump))
        if self._vorbis and not self._untouched:
            self._sound.close()
            self._sound = self._open()
        self._untouched = False
        try:
            self._sound.seek(first)
            return self._sound.read(stop - first, dtype="float32", always_2d=True)[start - first :]
        except RuntimeError:  # raised for a FLAC that ends too early
            return np.empty((0, self.channels), np.float32)

    def close(self) -> None:
        """Closes the file."""
        self._sound.close()


@contextmanager
def open_recording(file: File) -> Iterator[Recording]:
    """Yields the opened recording of a file. Raises SoundError if it is missing, empty or no sound."""
    if isinstance(file, str | Path):
        if not Path(file).is_file():
            raise SoundError(file, "missing file", "is no file: check its name")
        size = Path(file).stat().st_size
    else:
        size = file.seek(0, 2)
        file.seek(0)
    if size == 0:
        raise SoundError(file, "empty", "is empty (0 bytes): fetch or record it again")
    with decoder_errors(file):
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
            raise SoundError(file, "empty", "holds no samples (0 s): record it again, or remove it")
        yield recording
    finally:
        recording.close()


def _open(file: File) -> Recording:
    if links := chain_links(file):
        return ChainedRecording(file, [_open_one(link) for link in link_contents(file, links)])
    return _open_one(file)


def _open_one(file: File) -> Recording:
    # Raw G.722 has no header, so that only the suffix identifies it.
    refused = ""
    if suffix_of(file) not in FFMPEG and not _is_mpeg(file):
        try:
            recording = SoundFileRecording(file)
            if recording.trustworthy:
                return recording
            recording.close()
        except RuntimeError as error:
            message = str(error).rpartition(": ")[2].rstrip(".")
            refused = EXPLANATIONS.get(message, message)
        except ValueError:
            # The rate or number of channels is impossible; FFmpeg reports which.
            refused = "its header is damaged"
    from modalities.audio.containers import ContainerRecording

    return ContainerRecording(file, refused)


def _is_mpeg(file: File) -> bool:
    """Returns true for MP3 under another suffix or in a WAV, which libsndfile would read with libmpg123."""
    with content_of(file) as content:
        head = content.read(22)
    return is_frame(head) or (head[:4] == b"RIFF" and head[20:] == b"\x55\0")


def num_frames(frames: int, rate: int, wanted: int) -> int:
    """Returns the number of samples that so many frames at ``rate`` Hz become at the wanted rate."""
    return max(1, round(frames * wanted / rate))


def read_window(recording: Recording, rate: int, start: int, stop: int, origin: int = 0) -> Tensor:
    """Returns samples ``start`` to ``stop`` of a recording at ``rate`` Hz, ``(channels, stop − start)`` float32.

    origin: the frame of the recording that is sample 0. Only the window and the filter's margin are resampled. The
    result equals that part of the whole recording, resampled, to 1e-6 of full scale, except for codecs that fill bands
    with random noise (see ``ContainerRecording``). soxr (HQ) passes 91 % of the lower Nyquist frequency, rejects all
    above it by 130 dB, and takes any ratio of rates; ``torchaudio.functional.resample`` is as good with 128 zero
    crossings, but several times slower, and needs minutes for rates without a common divisor. Raises SoundError for
    samples that are not finite, and for a file that is cut short.
    """
    divisor = math.gcd(recording.rate, rate)
    up, down = rate // divisor, recording.rate // divisor
    margin = 0 if up == down else math.ceil(MARGIN * max(1.0, recording.rate / rate))
    # Sample j · up lies exactly at frame j · down: windows begin there, so that the resampler's phases agree.
    block = max(0, start // up - math.ceil(margin / down))
    first = origin + block * down
    last = min(recording.frames, origin + math.ceil(stop * down / up) + margin)
    frames = read_frames(recording, first, last)
    if up != down:
        frames = soxr.resample(frames, recording.rate, rate, quality="HQ")
    offset = start - block * up
    frames = frames[offset : offset + stop - start]
    # The resampler's rounding may leave out the last sample.
    frames = np.pad(frames, ((0, stop - start - len(frames)), (0, 0)), mode="edge")
    return torch.from_numpy(np.ascontiguousarray(frames.T))


def read_frames(recording: Recording, start: int, stop: int) -> np.ndarray:
    """Returns frames ``start`` to ``stop``, ``(n, channels)``; raises SoundError if some are missing or not finite."""
    with decoder_errors(recording.file):
        frames = recording.read(start, stop)
    if len(frames) < stop - start:
        raise SoundError(
            recording.file,
            "cut short",
            f"is cut short or damaged: its header promises {recording.frames / recording.rate:.2f} s, but not all of "
            f"{start / recording.rate:.2f} to {stop / recording.rate:.2f} s can be decoded; fetch it again",
        )
    if not np.isfinite(frames).all():
        frame = start + int(np.flatnonzero(~np.isfinite(frames).all(1))[0])
        detail = f"holds samples that are not finite (NaN or infinity), the first at {frame / recording.rate:.3f} s"
        raise SoundError(recording.file, "samples that are not finite", f"{detail}: write it again")
    return frames

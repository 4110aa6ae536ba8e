"""Sound files of every kind: opened without being read, and read from any place on.

libsndfile (soundfile) comes first: it is fast, and exact to the frame wherever it seeks. FFmpeg (PyAV, in
``containers.py``) reads what libsndfile refuses (M4A, AAC, G.722, WMA …), what it cannot seek in, what it gives no
believable length of, and MP3: libmpg123 estimates the length of files without a tag, and prints its complaints.
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
"""Frames of the slower rate on either side of a window, beyond which soxr's filter (HQ) does not reach."""

PREROLL = 1.0
"""Seconds that Opus is decoded before a window: its first frames after a jump lean on earlier ones."""
MOST_FRAMES = 1 << 48
"""Frames beyond which a length is none: libsndfile gives 2⁶³ − 1 for a FLAC whose header leaves it open."""

EXPLANATIONS = {
    "SF_INFO struct incomplete": "its header gives a sample rate of 0 Hz, or no channels",
    "File does not exist or is not a regular file (possibly a pipe?)": "no frame of sound is in it",
}
"""Messages of libsndfile, and what they mean."""


class SeekSafeFile:
    """A file in memory for libsndfile, which seeks where a damaged header sends it.

    A place before the start is the start. An exception would be printed with a traceback by soundfile, and passed over.
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
    """A recording that libsndfile reads. Raises RuntimeError where it does not.

    In Ogg Vorbis libsndfile jumps to the right sample only from a file that was just opened, and not into the last
    page: it counts back from the end of a page, and the last one ends before its samples do. So the file is opened
    again for each window, and its last page reached from the one before.
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
        """Tells whether its length is more than a guess, and whether any place of it can be reached."""
        mpeg = self._sound.subtype.startswith("MPEG")
        return self._sound.seekable() and not mpeg and 0 < self.frames < MOST_FRAMES

    def read(self, start: int, stop: int) -> np.ndarray:
        """Returns what ``Recording.read`` does."""
        first = max(0, min(start - self._preroll, self._last_jump))
        if self._vorbis and not self._untouched:
            self._sound.close()
            self._sound = self._open()
        self._untouched = False
        try:
            self._sound.seek(first)
            return self._sound.read(stop - first, dtype="float32", always_2d=True)[start - first :]
        except RuntimeError:  # what libsndfile says of a FLAC that ends too early
            return np.empty((0, self.channels), np.float32)

    def close(self) -> None:
        """Lets go of the file."""
        self._sound.close()


@contextmanager
def open_recording(file: File) -> Iterator[Recording]:
    """Yields the recording of a file, not yet read. Raises SoundError for one that is missing, empty or no sound."""
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
            raise SoundError(file, "empty", "holds no samples (0 s): record it again, or take it away")
        yield recording
    finally:
        recording.close()


def _open(file: File) -> Recording:
    if links := chain_links(file):
        return ChainedRecording(file, [_open_one(link) for link in link_contents(file, links)])
    return _open_one(file)


def _open_one(file: File) -> Recording:
    # Raw G.722 has no header, so that any bytes could be some: its suffix alone tells.
    refused = ""
    if suffix_of(file) not in FFMPEG and not _is_mpeg(file):
        try:
            recording = SoundFileRecording(file)
            if recording.trustworthy:
                return recording
            recording.close()
        except RuntimeError as error:
            said = str(error).rpartition(": ")[2].rstrip(".")
            refused = EXPLANATIONS.get(said, said)
        except ValueError:
            # A rate or a number of channels that no sound has; FFmpeg's header tells which.
            refused = "its header is damaged"
    from modalities.audio.containers import ContainerRecording

    return ContainerRecording(file, refused)


def _is_mpeg(file: File) -> bool:
    """Returns true for MP3 under another suffix, in a WAV too; libsndfile would have libmpg123 read it."""
    with content_of(file) as content:
        head = content.read(22)
    return is_frame(head) or (head[:4] == b"RIFF" and head[20:] == b"\x55\0")


def num_frames(frames: int, rate: int, wanted: int) -> int:
    """Returns how many samples a channel so many frames at ``rate`` Hz are at the wanted rate."""
    return max(1, round(frames * wanted / rate))


def read_window(recording: Recording, rate: int, start: int, stop: int, origin: int = 0) -> Tensor:
    """Returns samples ``start`` to ``stop`` of a recording at ``rate`` Hz, ``(channels, stop − start)`` float32.

    origin: the frame of the recording that sample 0 is. No more is resampled than the window and the filter's reach.
    The window equals that of the whole recording resampled to 1e-6 of full scale, but for codecs that fill bands with
    random noise (AAC with noise substitution, AC-3): ``ContainerRecording`` tells what holds there. soxr is
    band-limited (its quality HQ passes 91 % of the lower Nyquist frequency, and nothing above it by more than −100 dB),
    fast, and takes any ratio of rates, where a polyphase filter of two rates without a common divisor would be as large
    as their product. Raises SoundError for samples that are not finite, and for a file that is cut short.
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
    """Returns frames ``start`` to ``stop``, ``(n, channels)``; SoundError where some are missing or not finite."""
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
        place = start + int(np.flatnonzero(~np.isfinite(frames).all(1))[0])
        raise SoundError(
            recording.file,
            "samples that are not finite",
            f"holds samples that are not finite (NaN or infinity), the first at {place / recording.rate:.3f} s: "
            "write it again",
        )
    return frames

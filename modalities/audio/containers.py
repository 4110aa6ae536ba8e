"""Sounds that FFmpeg decodes (PyAV): M4A, AAC, G.722 and whatever else libsndfile refuses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np

from modalities.audio.reading import File, SoundError, name_of

FORMATS = "mov,mp4,aac,g722,asf,mp3,ogg,flac,wav,w64,aiff,caf,au,matroska,amr,ac3,eac3,wv,ape,tta"
"""What FFmpeg may take a file for: never a playlist, which could name other files and addresses."""
RAW = frozenset({"aac", "g722"})
"""Formats without an index, whose length is that of their packets."""
PREROLL = 0.25
"""Seconds that a decoder is given before a window, since its first frames after a jump lean on earlier ones."""

SLACK = 0.1
"""Seconds by which a file may end before its container says so: they are silent."""


class ContainerRecording:
    """A recording that FFmpeg decodes. Raises SoundError where it does not, with what libsndfile said of it before."""

    def __init__(self, file: File, refused: str = "") -> None:
        self.file = file
        suffix = Path(name_of(file)).suffix.lower()
        source = str(file) if isinstance(file, str | Path) else file
        try:
            if not isinstance(file, str | Path):
                file.seek(0)
            self._container = av.open(
                source, format="g722" if suffix == ".g722" else None, options={"format_whitelist": FORMATS}
            )
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise self._no_sound(refused or _words(error)) from error
        if not self._container.streams.audio:
            self._container.close()
            raise self._no_sound(refused or "it has no sound in it")
        self._stream = self._container.streams.audio[0]
        self.rate, self.channels = self._stream.rate or 0, self._stream.channels
        self._begin = (self._stream.start_time or 0) * self._seconds
        self.frames = self._count_frames()

    @property
    def _seconds(self) -> float:
        """Of one unit of the stream's time stamps."""
        return float(self._stream.time_base or 0)

    @property
    def _exact(self) -> bool:
        """Whether time stamps tell samples apart."""
        return self._seconds * self.rate <= 1

    def _no_sound(self, detail: str) -> SoundError:
        return SoundError(self.file, "not audio", f"cannot be decoded as a sound: {detail}")

    def _count_frames(self) -> int:
        if self._stream.duration and self._exact and self._container.format.name not in RAW:
            return round(self._stream.duration * self._seconds * self.rate)
        try:
            total = sum(packet.duration or 0 for packet in self._container.demux(self._stream) if packet.size)
        except av.error.FFmpegError:  # what stands before the damage can be used
            total = 0
        return round(total * self._seconds * self.rate)

    def read(self, start: int, stop: int) -> np.ndarray:
        """As ``Recording.read``: decoded from a little before the window on, or from the file's start.

        The latter where time stamps are coarser than a sample (milliseconds in WMA), so that after a jump nobody could
        tell which sample it is that comes.
        """
        exact = self._exact
        seconds = start / self.rate - PREROLL if exact else 0.0
        self._container.seek(self._stamp(seconds), stream=self._stream, backward=True)
        found = np.zeros((stop - start, self.channels), np.float32)
        place, reached = None, start
        for frame_place, values in self._decoded():
            if place is None or (exact and frame_place > place):
                place = frame_place if exact else 0
            first, last = max(place, start), min(place + len(values), stop)
            if last > first:
                found[first - start : last - start] = values[first - place : last - place]
                reached = last
            place += len(values)
            if place >= stop:
                break
        if stop == self.frames and stop - reached < SLACK * self.rate:
            reached = stop
        return found[: reached - start]

    def _decoded(self) -> Iterator[tuple[int, np.ndarray]]:
        """Place and values ``(n, channels)`` of each frame from here on, as far as it can be decoded."""
        to_float = av.AudioResampler(format="fltp")
        try:
            for packet in self._container.decode(self._stream):
                place = round(((packet.pts or 0) * self._seconds - self._begin) * self.rate)
                for frame in to_float.resample(packet):
                    yield place, frame.to_ndarray().T
        except av.error.FFmpegError:  # what was decoded until here counts
            return

    def _stamp(self, seconds: float) -> int:
        return int((max(0.0, seconds) + self._begin) / self._seconds)

    def close(self) -> None:
        """As ``Recording.close``."""
        self._container.close()


def _words(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)

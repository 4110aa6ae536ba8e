"""Sounds that FFmpeg decodes (PyAV): M4A, AAC, G.722 and whatever else libsndfile refuses."""

from __future__ import annotations

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

    def _no_sound(self, detail: str) -> SoundError:
        return SoundError(self.file, "not audio", f"cannot be decoded as a sound: {detail}")

    def _count_frames(self) -> int:
        if self._stream.duration and self._container.format.name not in RAW:
            return round(self._stream.duration * self._seconds * self.rate)
        try:
            total = sum(packet.duration or 0 for packet in self._container.demux(self._stream) if packet.size)
        except av.error.FFmpegError:  # what stands before the damage can be used
            total = 0
        return round(total * self._seconds * self.rate)

    def read(self, start: int, stop: int) -> np.ndarray:
        """As ``Recording.read``: each decoded frame is put where its time stamp says."""
        found = np.zeros((stop - start, self.channels), np.float32)
        reached = start
        self._container.seek(self._stamp(start / self.rate - PREROLL), stream=self._stream, backward=True)
        to_float = av.AudioResampler(format="fltp")
        try:
            for packet in self._container.decode(self._stream):
                place = round(((packet.pts or 0) * self._seconds - self._begin) * self.rate)
                if place >= stop:
                    break
                for frame in to_float.resample(packet):
                    values = frame.to_ndarray().T
                    first, last = max(place, start), min(place + len(values), stop)
                    if last > first:
                        found[first - start : last - start] = values[first - place : last - place]
                        reached = max(reached, last)
                    place += len(values)
        except av.error.FFmpegError:  # cut short: what was decoded until then counts
            pass
        return found[: reached - start]

    def _stamp(self, seconds: float) -> int:
        return int((max(0.0, seconds) + self._begin) / self._seconds)

    def close(self) -> None:
        """As ``Recording.close``."""
        self._container.close()


def _words(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)

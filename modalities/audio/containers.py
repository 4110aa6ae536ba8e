"""Decodes sounds with FFmpeg (PyAV): MP3, M4A, AAC, G.722, WMA, and files that libsndfile refuses."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import av
import numpy as np

from modalities.audio.mp3 import promised_samples
from modalities.audio.packets import count_samples, decode_all, decode_from
from modalities.audio.recording import (
    File,
    SoundError,
    content_of,
    decoder_errors,
    format_change,
    suffix_of,
    version_of,
)
from modalities.audio.riff import claims_too_much

FORMATS = "mov,mp4,aac,g722,asf,mp3,ogg,flac,wav,w64,aiff,caf,au,matroska,amr,ac3,eac3,wv,ape,tta,loas"
"""Formats that FFmpeg may detect; no playlists, which could name other files and addresses."""

PREROLL = 1.0
"""Seconds that are decoded before a window. The first frames after a jump depend on earlier ones: an MP3's reservoir
of bits reaches back half a second at the lowest bit rates, Opus settles within 0.8 s."""
NEAR = 30.0
"""Windows that begin within these first seconds are decoded from the start where the codec draws random noise."""
NOISY = frozenset({"aac", "ac3", "eac3"})
"""Codecs whose decoders fill bands with random noise (noise substitution, dither)."""
TAIL = 0.5
"""Seconds before the end that are decoded to find the end of the last frame."""
SLACK = 0.1
"""Seconds that may be missing at the end of a file, or where packets cannot be decoded: they are read as silence, and
all other samples keep their positions. A file that misses more counts as cut short."""

INDEXED = ("mov", "wav", "w64", "aiff", "au", "caf")
"""Formats in which FFmpeg seeks exactly to a sample of a PCM codec; the first has an index for all codecs."""
SEEKABLE = frozenset({"aac", "alac", "flac", "opus", "ac3", "eac3", "mp3float"})
"""Other codecs in ``mov`` whose frames depend on no more than ``PREROLL`` before them."""
PREROLLS = {"mp3float": PREROLL, "mp3": PREROLL, "aac": PREROLL, "flac": 0.0, "g722": math.inf}
"""Seconds decoded before a window, by codec, for codecs whose packets give their number of samples. G.722 adapts to
everything before, so that only decoding from the start is exact."""
TELLING = frozenset({"mp3", "aac", "flac", "g722", "wav"})
"""Formats in which the packets of these codecs give it; others round the durations, or trim the ends themselves."""

_counts: dict[tuple[str, int, int], int] = {}
"""Maps path, size and time of change of a file to its number of frames."""


class ContainerRecording:
    """Reads a file with FFmpeg, with the same samples as the program ``ffmpeg``.

    Encoder delays and edit lists are applied. Frames are counted without decoding if the header or the packets are
    reliable, else by decoding the file once; counts of files on a disk are kept.

    A window equals the same part of the whole file decoded at once: to the bit for MP3, FLAC, ALAC, PCM, G.722, WMA
    and AAC without noise substitution, to 1e-6 for Opus. AAC encoders may replace noise by its power, and a decoder
    then draws other noise in each pass: windows that begin in the first ``NEAR`` seconds are decoded from the start and
    equal, later ones differ in that noise. Reading costs the decoding of the window and ``PREROLL``; in files without
    an index (MP3, ADTS) also a pass over the packets before it (0.1 s in ten minutes), and for G.722, WMA and rarer
    codecs the decoding of all that lies before (0.3 s in ten minutes).

    refused: another library's message about the file, which is reported if FFmpeg does not know the format either.
    Raises SoundError for files that FFmpeg cannot decode.
    """

    def __init__(self, file: File, refused: str = "") -> None:
        self.file, self._refused = file, refused
        # Before FFmpeg reads: it does not expect others to move the position of a file in memory.
        promised = promised_samples(file)
        with decoder_errors(file):
            self._container, self._stream = self._open()
        try:
            with decoder_errors(file):
                self._describe(promised)
        except SoundError:
            self.close()
            raise

    def _open(self) -> tuple[Any, Any]:
        """Opens the file at its start; returns the container and its default stream of sound."""
        file = self.file
        if hasattr(file, "seek"):
            source: Any = file
            source.seek(0)
        else:
            source = os.path.abspath(file)  # FFmpeg takes a name such as "12:30.mp3" for an address
        with content_of(file) as content:
            if claims_too_much(content):
                raise SoundError(
                    file, "damaged header", "has a chunk in its header that is longer than the file: write it again"
                )
        raw = "g722" if suffix_of(file) == ".g722" else None
        try:
            container = av.open(source, format=raw, options={"format_whitelist": FORMATS})
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise self._no_sound(self._refused or getattr(error, "strerror", None) or str(error)) from error
        # A stream whose header lacks a rate or channels is never FFmpeg's best one; it gets an error of its own later.
        stream = container.streams.best("audio") or next(iter(container.streams.audio), None)
        problem = ""
        if stream is None:
            problem = self._refused or "it has no sound in it"
        elif stream.codec_context is None:
            problem = "FFmpeg does not know its codec"
        if problem:
            container.close()
            raise self._no_sound(problem)
        self._untouched, self._decoded = True, False
        return container, stream

    def _no_sound(self, detail: str) -> SoundError:
        return SoundError(self.file, "not audio", f"cannot be decoded as a sound: {detail}")

    def _describe(self, promised: int | None) -> None:
        """Sets rate, channels and frames, and the way in which positions are found."""
        stream, context = self._stream, self._stream.codec_context
        self.rate, self.channels, self.frames = stream.rate or 0, stream.channels, 0
        if self.rate < 1 or self.channels < 1:
            return
        self._begin = Fraction(stream.start_time or 0) * stream.time_base
        self._seeks = self._can_seek()
        kind = self._container.format.name
        self._preroll = PREROLL if self._seeks else PREROLLS.get(context.name) if kind in TELLING else None
        self._draws_noise = context.name in NOISY
        if self._seeks:
            self.frames = self._last_frame_end()
        elif promised is not None and kind == "mp3":
            self.frames = promised
        else:
            self.frames = self._cached_count()

    def _can_seek(self) -> bool:
        """Returns true if the container has an index and its time stamps resolve single samples."""
        stream, codec = self._stream, self._stream.codec_context.name
        kind = self._container.format.name.split(",")[0]
        if kind not in INDEXED or not stream.duration or stream.time_base * self.rate > 1:
            return False
        return codec.startswith("pcm_") or (kind == "mov" and codec in SEEKABLE)

    def _last_frame_end(self) -> int:
        """Returns the end of the last frame; encoders pad it, so that the header's duration is not exact.

        Returns the header's duration if the end is missing, so that reading reports the file as cut short.
        """
        promised = round(self._stream.duration * self._stream.time_base * self.rate)
        begin, end = promised / self.rate - TAIL, 0
        if self._draws_noise:  # decoding would draw some of the noise that the window gets
            end = self._last_packet_end(begin)
        else:
            for position, frame in self._seek(begin):
                end = position + frame.samples
        return end if end >= promised - SLACK * self.rate else promised

    def _last_packet_end(self, begin: float) -> int:
        """Returns the end of the last packet, whose own duration may lack the padding of its frame."""
        self._jump(begin)
        end, longest = None, 0
        for packet in self._container.demux(self._stream):
            if packet.size and packet.pts is not None:
                longest = max(longest, packet.duration or 0)
                end = packet.pts + longest
        return 0 if end is None else round((end * self._stream.time_base - self._begin) * self.rate)

    def _cached_count(self) -> int:
        """Returns the number of frames, and keeps it for a file on a disk."""
        version = version_of(self.file)
        if version is None:
            return self._count()
        if version not in _counts:
            _counts[version] = self._count()
        return _counts[version]

    def _count(self) -> int:
        """Returns the number of frames, from the packets if they give it, else by decoding all of them."""
        container, stream = self._rewound()
        if self._preroll is not None:
            return count_samples(container, stream)
        return sum(self._check_format(frame).samples for _, frame in decode_all(container, stream))

    def read(self, start: int, stop: int) -> np.ndarray:
        """Returns frames as ``Recording.read``. Raises SoundError where rate or channels change inside."""
        to_float = av.AudioResampler(format="fltp")
        found = np.zeros((stop - start, self.channels), np.float32)
        reached = start
        with decoder_errors(self.file):
            for position, frame in self._frames(start):
                num = self._check_format(frame).samples
                first, last = max(position, start), min(position + num, stop)
                if first > reached:  # packets in between could not be decoded; or an index has a gap there
                    if not self._seeks and not self._bridges(first - reached):
                        break
                    reached = min(first, stop)
                if last > first:
                    (values,) = to_float.resample(frame)
                    found[first - start : last - start] = values.to_ndarray().T[first - position : last - position]
                    reached = last
                if position + num >= stop:
                    break
        if stop == self.frames and self._bridges(stop - reached):
            reached = stop
        return found[: reached - start]

    def _bridges(self, num: int) -> bool:
        """Returns true if so many missing samples are few enough to be read as silence."""
        return num <= SLACK * self.rate

    def _frames(self, start: int) -> Iterator[tuple[int, Any]]:
        """Yields positions and frames in order, from a frame that begins at or before ``start`` on."""
        preroll = self._preroll
        if preroll is not None and self._draws_noise and start < NEAR * self.rate:
            preroll = math.inf
        if self._seeks:
            yield from self._seek(start / self.rate - (NEAR + PREROLL if preroll == math.inf else preroll or 0.0))
            return
        container, stream = self._rewound()
        if preroll is None:
            yield from decode_all(container, stream)
        else:
            yield from decode_from(container, stream, start - preroll * self.rate)

    def _seek(self, seconds: float) -> Iterator[tuple[int, Any]]:
        """Yields positions and frames by their time stamps from some seconds on, as far as they can be decoded.

        Negative seconds are right: an M4A's first packets lie there, and prepare its first frame.
        """
        if self._draws_noise and self._decoded:
            self._open_again()
        self._decoded = True
        self._jump(seconds)
        position, broken = None, False
        for packet in self._container.demux(self._stream):
            try:
                frames = self._stream.codec_context.decode(packet)
            except av.error.FFmpegError:
                broken = True
                continue
            for frame in frames:
                begin = position or 0
                if frame.pts is not None:
                    begin = round((frame.pts * self._stream.time_base - self._begin) * self.rate)
                if position is not None and broken and not self._bridges(begin - position):
                    return
                position, broken = begin if position is None else max(position, begin), False
                yield position, frame
                position += frame.samples

    def _jump(self, seconds: float) -> None:
        self._untouched = False
        stamp = (Fraction(seconds) + self._begin) / self._stream.time_base
        self._container.seek(math.floor(stamp), stream=self._stream, backward=True)

    def _check_format(self, frame: Any) -> Any:
        before, after = (self.rate, self.channels), (frame.sample_rate, frame.layout.nb_channels)
        if before != after:
            raise format_change(self.file, before, after)
        return frame

    def _rewound(self) -> tuple[Any, Any]:
        """Returns container and stream at the file's start: formats without an index cannot jump back exactly."""
        if not self._untouched:
            self._open_again()
        self._untouched = False
        return self._container, self._stream

    def _open_again(self) -> None:
        self._container.close()
        self._container, self._stream = self._open()

    def close(self) -> None:
        """Closes the file."""
        self._container.close()

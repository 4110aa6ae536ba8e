"""Videos that FFmpeg decodes (PyAV): MP4, MOV, WebM, MKV, AVI, GIF. Sought by time stamps, never by counting frames."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av

from modalities.video.clock import Clock, StampsInOrder, standard_rate
from modalities.video.display import Orientation, orientation_of
from modalities.video.footage import File, VideoError, path_of, words_of, wrap_errors
from modalities.video.opening import open_container, video_stream
from modalities.video.pixels import DecodedFrame

SEQUENTIAL = frozenset({"gif", "rpza"})
"""Codecs that are decoded from the first frame on: a GIF's frames depend on all before them, and MOV may call every
frame of RPZA a key frame."""
LENIENT = frozenset({"tiff"})
"""Codecs whose decoders find faults in good files where they are asked to be strict."""
LIBVPX = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
CLOSED = {
    "h264": re.compile(rb"\x00\x00\x01[\x05\x25\x45\x65]"),
    "hevc": re.compile(rb"\x00\x00\x01[\x26\x28]"),
    "mpeg1video": re.compile(rb"\x00\x00\x01\xb8.{3}[\x40-\x7f\xc0-\xff]", re.DOTALL),
}
"""Codecs whose frames have no time stamp in AVI that can be used, and the bytes of a key frame that no frame shown
before it depends on: IDR pictures of H.264 and HEVC, closed groups of MPEG-1."""
HDR_TRANSFERS = frozenset({16, 18})
"""FFmpeg's numbers of the transfer functions PQ (SMPTE ST 2084) and HLG (ARIB STD-B67)."""
STEPS_BACK = (0.0, 1.0, 4.0, 16.0)
"""Seconds before the target that are sought in turn, until a key frame is no later than the target; then the file's
start. Indices give decoding times, by which a key frame may precede frames that are shown earlier."""


@dataclass(frozen=True)
class Measures:
    """Properties of a stream, measured on its first frame and its last packets; ``duration`` is in seconds."""

    clock: Clock
    duration: float
    num_frames: int | None
    orientation: Orientation


class ContainerFootage:
    """Footage that FFmpeg decodes, its first frame at 0 s. Raises VideoError for what it cannot decode.

    libvpx decodes transparent VP8 and VP9, since FFmpeg's own decoders leave transparency out.
    """

    def __init__(self, file: File, strict: bool = False) -> None:
        """strict: damage that decoders could conceal is an error too."""
        self.file = file
        path = path_of(file)
        self._container = open_container(file)
        try:
            self._stream = video_stream(self._container, file)
            self._stream.codec_context.thread_count = 1  # files are read side by side
            kind, codec = self._container.format.name, self._stream.codec_context.name
            if strict and codec not in LENIENT:
                self._stream.codec_context.options = {"err_detect": "explode"}
            self._sequential, self._is_gif = codec in SEQUENTIAL, kind == "gif"
            self._in_order = self._is_gif or (kind == "avi" and codec in CLOSED)
            self._step = float(self._stream.time_base or 0)
            self._clock = Clock(0.0, self._step, float(self._stream.average_rate or self._stream.guessed_rate or 1))
            measures = self._cached_measures(path)
        except BaseException:
            self._container.close()
            raise
        self._clock, self.duration, self.num_frames = measures.clock, measures.duration, measures.num_frames
        self._orientation, self.rate = measures.orientation, measures.clock.rate
        # Width of a pixel as it is shown, in heights of it.
        aspect = float(self._stream.sample_aspect_ratio or 1)
        height, width = self._stream.height, max(1, round(self._stream.width * aspect))
        self.height, self.width = (width, height) if self._orientation.transposed else (height, width)
        self.oddities = tuple(
            name
            for name, odd in (
                ("hdr", self._stream.codec_context.color_trc in HDR_TRANSFERS),
                ("tilted", not self._orientation.straight),
            )
            if odd
        )

    def _cached_measures(self, path: Path | None) -> Measures:
        """Returns what ``_measure`` does, which decodes a frame, but measures each file on a disk only once."""
        if path is None:
            return self._measure()
        status = path.stat()
        key = str(path), status.st_size, status.st_mtime_ns
        if key not in _measured:
            _measured[key] = self._measure()
        return _measured[key]

    def _measure(self) -> Measures:
        first = next(self._decode_frames(), None)
        if first is None:
            raise VideoError(self.file, "no frames", "has a video stream without any frame that can be decoded")
        begin, _, frame = first
        begin = begin or 0.0
        rate = float(self._stream.average_rate or self._stream.guessed_rate or 0)
        end, num_packets = self._last_packets(begin, rate)
        # Headers may count by decoding times, which end before the last frame is shown; a file may end before both.
        length = end if self._is_gif else max(self._length_by_header(begin), end)
        if length <= 0:
            raise VideoError(self.file, "no frames", "has a video stream that lasts 0 s: record it again")
        num_frames = num_packets if self._is_gif else self._stream.frames or None
        if rate <= 0 or self._is_gif:
            rate = (num_frames or 1) / length
        rounded = 0.0 if self._is_gif else self._step  # a GIF's delays are what is shown, not what time stamps came to
        clock = Clock(begin, rounded, standard_rate(rate, length, rounded))
        return Measures(clock, clock.length(length), num_frames, orientation_of(frame))

    def _length_by_header(self, begin: float) -> float:
        """Returns the seconds from the first frame to the last one's end; 0 if the header says nothing."""
        if self._stream.duration:
            return self._stream.duration * self._step
        text = next((text for key, text in self._stream.metadata.items() if key.upper().startswith("DURATION")), "")
        if match := re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d+)?)", text):
            hours, minutes, seconds = map(float, match.groups())
            return 3600 * hours + 60 * minutes + seconds - begin
        return 0.0

    def _last_packets(self, begin: float, rate: float) -> tuple[float, int]:
        """Returns the seconds from the first frame to the end of the last packet, and how many packets were met."""
        length = 0 if self._is_gif else self._container.duration or 0
        self._seek(length / av.time_base)
        stamps = StampsInOrder(self._step, delays=self._is_gif) if self._in_order else None
        usual = 1 / rate if rate > 0 else 0.0
        end, num = 0.0, 0
        try:
            for packet in self._container.demux(self._stream):
                time, duration = packet.pts, packet.duration or 0
                if time is None or not packet.size:
                    continue
                start, lasting = time * self._step, duration * self._step or usual
                if stamps is not None:
                    stamps.add(packet)
                    start, lasting = stamps.next()
                end, num = max(end, start + lasting - begin), num + 1
        except av.error.FFmpegError:  # what stands before the damage can be used
            pass
        return end, num

    def frames(self, start: float) -> Iterator[tuple[float, float, DecodedFrame]]:
        """Yields what ``Footage.frames`` does; decodes from the nearest key frame before ``start`` on."""
        shown: tuple[float, float, DecodedFrame] | None = None
        with wrap_errors(self.file):
            for time, duration, frame in self._from(start):
                if shown is not None and time > start:
                    yield shown[0], time, shown[2]
                shown = time, time + (duration or 1 / self.rate), DecodedFrame(frame, self._orientation)
            if shown is not None:
                yield shown

    def _from(self, start: float) -> Iterator[tuple[float, float, Any]]:
        """Yields time, duration and frame in the order of showing, from one that is shown no later than ``start``."""
        for back in () if self._sequential else STEPS_BACK:
            target = start - back
            if target <= 0:
                break
            try:
                self._seek(target + self._clock.begin)
                first = self._next_key_frame()
            except av.error.FFmpegError:
                break  # a damaged index: from the start it may go
            stamp = None if first is None else self._stamp(first)
            if stamp is None or self._clock.seconds(stamp) > start:
                continue
            yield from self._time_frames(self._decode_frames(first))
            return
        self._seek(0)
        yield from self._time_frames(self._decode_frames())

    def _stamp(self, packet: Any) -> float | None:
        """Returns when the packet's frame is shown by the stream's clock, in seconds; None if it has none."""
        stamp = packet.dts if self._in_order else packet.pts
        return None if stamp is None else stamp * self._step

    def _seek(self, seconds: float) -> None:
        """Seeks a key frame no later than that, by the stream's own clock; the file's start for 0."""
        if seconds <= 0:
            begin = self._stream.start_time or 0
            self._container.seek(min(0, begin), stream=self._stream, backward=True)
        else:
            self._container.seek(int(seconds / self._step), stream=self._stream, backward=True)

    def _next_key_frame(self) -> Any:
        """Returns the next packet that decoding can begin with; None where there is none, or none that can be timed."""
        packets = self._container.demux(self._stream)
        found = next((packet for packet in packets if packet.is_keyframe and packet.size), None)
        if found is None or not self._in_order:
            return found
        # Frames before an open key frame are not decoded, and so would not be counted.
        return found if CLOSED[self._stream.codec_context.name].search(bytes(found)) else None

    def _time_frames(self, frames: Iterator[tuple[float | None, float, Any]]) -> Iterator[tuple[float, float, Any]]:
        """Yields when each frame is shown, in seconds from the first on; none before the frame that precedes it."""
        last, after = 0.0, 0.0
        for stamp, duration, frame in frames:
            last = after if stamp is None else max(last, self._clock.seconds(stamp))
            after = last + (duration or 1 / self.rate)
            yield last, duration, frame

    def _decode_frames(self, first: Any = None) -> Iterator[tuple[float | None, float, Any]]:
        """Yields time by the stream's clock, duration and frame, from a key frame on, or from here on.

        Frames that are shown before the key frame depend on frames that were not decoded, and are left out. Raises
        VideoError for damage.
        """
        decoder = self._decoder()
        begin = -math.inf if first is None else self._stamp(first) or 0.0
        stamps = StampsInOrder(self._step, delays=self._is_gif) if self._in_order else None
        time = max(begin, 0.0)
        try:
            for packet in self._packets(first):
                stamp = self._stamp(packet)
                time = time if stamp is None else stamp
                if stamps is not None:
                    stamps.add(packet)
                for frame in self._decode(decoder, packet, early=time < begin):
                    own = None if frame.pts is None else frame.pts * self._step
                    duration = (frame.duration or 0) * self._step
                    if stamps is not None:
                        own, duration = stamps.next()
                    if own is not None and own < begin:
                        continue
                    if frame.is_corrupt:
                        raise self._damage_error(time if own is None else own, "a frame is corrupt")
                    yield own, duration, frame
        except av.error.EOFError:
            return
        except VideoError:
            raise
        except Exception as error:
            raise self._damage_error(time, words_of(error)) from error

    def _packets(self, first: Any) -> Iterator[Any]:
        if first is not None:
            yield first
        yield from self._container.demux(self._stream)

    def _decode(self, decoder: Any, packet: Any, early: bool) -> list[Any]:
        try:
            return decoder.decode(packet if packet.size else None)
        except av.error.FFmpegError:
            if early:
                return []
            raise

    def _decoder(self) -> Any:
        """Returns what decodes from here on: the stream's own, which is flushed by each seek; or libvpx."""
        own = self._stream.codec_context
        if "alpha_mode" in self._stream.metadata and own.name in LIBVPX:
            return av.CodecContext.create(LIBVPX[own.name], "r")
        return own

    def _damage_error(self, seconds: float, detail: str) -> VideoError:
        at = max(0.0, seconds - self._clock.begin)
        remedy = "fetch it again, or cut around it (data.cut)"
        return VideoError(self.file, "damaged", f"is damaged at {at:.2f} s ({detail}): {remedy}")

    def close(self) -> None:
        """Lets go of the file."""
        self._container.close()


_measured: dict[tuple[str, int, int], Measures] = {}
"""Measures of files by path, size and time of change."""

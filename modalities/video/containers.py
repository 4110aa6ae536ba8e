"""Videos that FFmpeg decodes (PyAV): MP4, MOV, WebM, MKV, AVI, GIF. Sought by time stamps, never by counting frames."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av

from modalities.video.pixels import DecodedFrame
from modalities.video.reading import File, VideoError, path_of

FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,gif"
"""What FFmpeg may take a file for: never a playlist, which could name other files and addresses."""
SEQUENTIAL = frozenset({"gif"})
"""Formats whose frames lean on all before them, so that they are decoded from the first on."""
LIBVPX = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
STEPS_BACK = (0.0, 1.0, 4.0, 16.0)
"""Seconds before what is wanted that are sought one after the other, until a key frame is no later than it: indices
give decoding times, by which a key frame may come before frames that are shown earlier. Then the file's start."""


class ContainerFootage:
    """Footage that FFmpeg decodes, its first frame at 0 s. Raises VideoError where it does not.

    What is transparent in VP8 and VP9 is decoded by libvpx, since FFmpeg's own decoders leave it out.
    """

    def __init__(self, file: File, strict: bool = False) -> None:
        """strict: whether what decoders could conceal is an error too."""
        self.file = file
        path = path_of(file)
        try:
            if path is None:
                file.seek(0)  # type: ignore[union-attr]
            self._container = av.open(file if path is None else str(path), options={"format_whitelist": FORMATS})
        except av.error.EOFError as error:
            raise VideoError(file, "no frames", "ends before its first frame: record it again") from error
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise VideoError(file, "not a video", f"cannot be decoded as a video: {_words(error)}") from error
        try:
            self._stream = self._choose()
            self._stream.codec_context.thread_count = 1  # files are read side by side
            if strict:
                self._stream.codec_context.options = {"err_detect": "explode"}
            self._sequential = self._container.format.name in SEQUENTIAL
            self._seconds = float(self._stream.time_base or 0)
            self.rate = float(self._stream.average_rate or self._stream.guessed_rate or 0)
            measures = self._known_measures(path)
        except BaseException:
            self._container.close()
            raise
        self._begin, self.duration, self._turn = measures
        self.num_frames: int | None = self._stream.frames or None
        if self.rate <= 0:
            self.rate = (self.num_frames or 1) / self.duration
        height, width = self._stream.height, max(1, round(self._stream.width * self._aspect))
        self.height, self.width = (width, height) if self._turn % 2 else (height, width)

    def _choose(self) -> Any:
        """The first stream of moving pictures: a cover of a song is none."""
        streams = [
            stream
            for stream in self._container.streams.video
            if not stream.disposition & av.stream.Disposition.attached_pic
        ]
        if not streams:
            others = ", ".join(sorted({stream.type for stream in self._container.streams})) or "nothing"
            raise VideoError(self.file, "no video stream", f"has no video in it, only {others}: take it away")
        if streams[0].codec_context is None or not streams[0].width or not streams[0].height:
            raise VideoError(self.file, "no frames", "has a video stream without any frame: record it again")
        return streams[0]

    @property
    def _aspect(self) -> float:
        """Width of a pixel as it is shown, in heights of it."""
        return float(self._stream.sample_aspect_ratio or 1)

    def _known_measures(self, path: Path | None) -> tuple[float, float, int]:
        """As ``_measure``, which takes a decoded frame: of a file on a disk once."""
        if path is None:
            return self._measure()
        status = path.stat()
        key = str(path), status.st_size, status.st_mtime_ns
        if key not in _measured:
            _measured[key] = self._measure()
        return _measured[key]

    def _measure(self) -> tuple[float, float, int]:
        """When the first frame is shown by the stream's clock, how long all are, and quarters of a turn to upright."""
        first = next((frame for _, frame in self._decoded()), None)
        if first is None:
            raise VideoError(self.file, "no frames", "has a video stream without any frame that can be decoded")
        begin = (first.pts or 0) * self._seconds
        # Headers may count by decoding times, which end before the last frame is shown; a file may end before both.
        length = max(self._length_by_header(begin), self._length_by_packets(begin))
        if length <= 0:
            raise VideoError(self.file, "no frames", "has a video stream that lasts 0 s: record it again")
        return begin, length, round(first.rotation / 90) % 4

    def _length_by_header(self, begin: float) -> float:
        """Seconds from the first frame to the last one's end; 0 where it says nothing (a browser's recorder)."""
        if self._stream.duration:
            return self._stream.duration * self._seconds
        told = next((text for key, text in self._stream.metadata.items() if key.upper().startswith("DURATION")), "")
        if match := re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d+)?)", told):
            hours, minutes, seconds = map(float, match.groups())
            return 3600 * hours + 60 * minutes + seconds - begin
        return 0.0

    def _length_by_packets(self, begin: float) -> float:
        """Seconds from the first frame to the end of the last packet."""
        if self._container.duration and not self._sequential:
            self._seek(self._container.duration / av.time_base)
        else:
            self._seek(0)
        usual = 1 / self.rate if self.rate > 0 else 0.0
        ends = [0.0]
        try:
            for packet in self._container.demux(self._stream):
                if packet.pts is not None:
                    ends.append(packet.pts * self._seconds - begin + ((packet.duration or 0) * self._seconds or usual))
        except av.error.FFmpegError:  # what stands before the damage can be used
            pass
        return max(ends)

    def frames(self, start: float) -> Iterator[tuple[float, float, DecodedFrame]]:
        """As ``Footage.frames``: from the nearest key frame before ``start`` on, which alone is handed out then."""
        shown: tuple[float, float, DecodedFrame] | None = None
        for time, frame in self._from(start):
            end = time + ((frame.duration or 0) * self._seconds or 1 / self.rate)
            if shown is not None and time > start:
                yield shown[0], time, shown[2]
            shown = time, end, DecodedFrame(frame, self._turn)
        if shown is not None:
            yield shown

    def _from(self, start: float) -> Iterator[tuple[float, Any]]:
        """Time and frame in the order of being shown, from a key frame that is shown no later than ``start`` on."""
        for back in () if self._sequential else STEPS_BACK:
            target = start - back
            if target <= 0:
                break
            try:
                self._seek(target + self._begin)
                first = self._next_key_frame()
            except av.error.FFmpegError:
                break  # a damaged index: from the start it may go
            if first is None or first.pts is None or first.pts * self._seconds - self._begin > start:
                continue
            yield from self._times(self._decoded(first))
            return
        self._seek(0)
        yield from self._times(self._decoded())

    def _seek(self, seconds: float) -> None:
        """To a key frame no later than that, by the stream's own clock; to the start for 0."""
        if seconds <= 0:
            begin = self._stream.start_time or 0
            self._container.seek(min(0, begin), stream=self._stream, backward=True)
        else:
            self._container.seek(int(seconds / self._seconds), stream=self._stream, backward=True)

    def _next_key_frame(self) -> Any:
        return next(
            (packet for packet in self._container.demux(self._stream) if packet.is_keyframe and packet.size), None
        )

    def _times(self, frames: Iterator[tuple[float | None, Any]]) -> Iterator[tuple[float, Any]]:
        """When each frame is shown; one without a time stamp, after the one before it."""
        last = -1 / self.rate
        for time, frame in frames:
            last = last + 1 / self.rate if time is None else time - self._begin
            yield last, frame

    def _decoded(self, first: Any = None) -> Iterator[tuple[float | None, Any]]:
        """Time by the stream's clock and frame from a key frame on, or from here on; VideoError for what is damaged.

        Frames that are shown before the key frame lean on what was not decoded, and are left out.
        """
        decoder = self._decoder()
        begin = -float("inf") if first is None else first.pts * self._seconds
        time = max(begin, 0.0)
        try:
            for packet in self._packets(first):
                time = packet.pts * self._seconds if packet.pts is not None else time
                for frame in self._decode(decoder, packet, early=time < begin):
                    own = None if frame.pts is None else frame.pts * self._seconds
                    if own is not None and own < begin:
                        continue
                    if frame.is_corrupt:
                        raise self._damaged(own if own is not None else time, "a frame is corrupt")
                    yield own, frame
        except av.error.EOFError:
            return
        except av.error.FFmpegError as error:
            raise self._damaged(time, _words(error)) from error

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
        """What decodes from here on: the stream's own, which knows of no packet after it was sought; or libvpx."""
        own = self._stream.codec_context
        if "alpha_mode" in self._stream.metadata and own.name in LIBVPX:
            return av.CodecContext.create(LIBVPX[own.name], "r")
        return own

    def _damaged(self, seconds: float, detail: str) -> VideoError:
        begin = getattr(self, "_begin", 0.0)
        return VideoError(
            self.file,
            "damaged",
            f"is damaged at {max(0.0, seconds - begin):.2f} s ({detail}): fetch it again, or cut around it (data.cut)",
        )

    def close(self) -> None:
        """As ``Footage.close``."""
        self._container.close()


_measured: dict[tuple[str, int, int], tuple[float, float, int]] = {}
"""What files of this path, size and time of change were measured as."""


def _words(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)

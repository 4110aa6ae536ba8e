"""Opens videos with FFmpeg: its allowed formats, and the choice of a stream."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av

from modalities.video.footage import File, VideoError, path_of, words_of

FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,gif"
"""Formats that FFmpeg may read: no playlists, which could name other files and addresses."""


def open_container(file: File) -> Any:
    """Returns FFmpeg's container of a video file; raises VideoError if it cannot be opened."""
    path = path_of(file)
    try:
        if path is None:
            file.seek(0)  # type: ignore[union-attr]
        source = file if path is None else address_of(path)
        return av.open(source, options={"format_whitelist": FORMATS}, metadata_errors="replace")
    except av.error.EOFError as error:
        raise VideoError(file, "no frames", "ends before its first frame: record it again") from error
    except Exception as error:
        raise VideoError(file, "not a video", f"cannot be decoded as a video: {words_of(error)}") from error


def address_of(path: Path) -> str:
    """Returns the path as an address for FFmpeg: "12:30.mp4" alone would have the protocol "12"."""
    return f"file:{path}"


def video_stream(container: Any, file: File) -> Any:
    """Returns the best stream of frames by FFmpeg's choice, which is the default one; covers of songs do not count.

    Raises VideoError if there is no stream of frames, or none that FFmpeg has a decoder for.
    """
    cover = av.stream.Disposition.attached_pic
    streams = [stream for stream in container.streams.video if not stream.disposition & cover]
    if not streams:
        others = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
        raise VideoError(file, "no video stream", f"has no video in it, only {others}: remove it")
    best = container.streams.best("video")
    stream = best if best in streams else streams[0]
    if stream.codec_context is None:
        raise VideoError(file, "unknown codec", "has a codec that FFmpeg does not know: convert it to MP4 (H.264)")
    if not stream.width or not stream.height:
        raise VideoError(file, "no frames", "has a video stream without any frame: record it again")
    return stream

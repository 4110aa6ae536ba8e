"""Writes videos with metadata inside, MP4 (H.264), WebM (VP9) and GIF, and reads the metadata."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import Colorspace
from PIL import Image
from torch import Tensor

from modalities.video.footage import File, VideoError, name_of, path_of, words_of
from modalities.video.frames import to_frames
from modalities.video.opening import address_of
from modalities.video.pixels import EXACT
from scm_media.reading import find_metadata
from scm_media.weights import write_whole

FORMATS = (".mp4", ".webm", ".gif")
CODECS = {
    "mp4": ("libx264", {"preset": "medium", "profile": "high"}),
    "webm": ("libvpx-vp9", {"b": "0", "deadline": "good", "cpu-used": "2"}),
}
"""The encoder of each container, and its options."""
KEY = "scm_media"
"""The key of our metadata in the comment's object."""
BT709, LIMITED = 1, 1
"""FFmpeg's numbers of the primaries, transfer and matrix of BT.709, and of luma from 16 to 235: what players take."""
HIGHEST_RATE = 240.0
GIF_RATE = 50.0
"""Frames a second at most: browsers slow what is to be shown for less than 2 hundredths of a second."""


def write_video(path: Path, sample: Tensor, rate: float, metadata: Mapping[str, Any], quality: int) -> str | None:
    """Writes ``(C, T, H, W)`` whole or not at all, the metadata as JSON in its comment; returns a remark on changes.

    MP4 is H.264 in yuv420p with its index in front, so that browsers play it while it loads; it has even sides, so that
    odd ones get a row or a column more, a copy of the last. WebM is VP9. quality: the constant rate factor of both,
    lower being better. A GIF has 256 colours a frame, and hundredths of a second. Raises ValueError for another
    suffix, a rate that cannot be, and samples that are not finite.
    """
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise ValueError(f"{path}: videos are written as {', '.join(FORMATS)}")
    if not 0 < rate <= (GIF_RATE if suffix == ".gif" else HIGHEST_RATE):
        bound = GIF_RATE if suffix == ".gif" else HIGHEST_RATE
        raise ValueError(f"{path}: a {suffix[1:].upper()} has above 0 and at most {bound:g} frames/s, got {rate:g}")
    try:
        frames = to_frames(sample)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    comment = json.dumps({KEY: dict(metadata)})
    if suffix == ".gif":
        write_whole(path, _gif(frames, rate, comment))
        return None
    odd = suffix == ".mp4" and (frames.shape[1] % 2 or frames.shape[2] % 2)
    height, width = frames.shape[1:3]
    if odd:
        frames = np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    aside = path.with_name(f".{path.stem}.{os.getpid()}{suffix}")  # FFmpeg moves the index in a file that it can open
    try:
        _encode(aside, frames, rate, comment, quality)
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
    if not odd:
        return None
    return (
        f"{width}×{height} is odd, and H.264 that browsers play is even: written as "
        f"{frames.shape[2]}×{frames.shape[1]}, the last row or column twice (WebM keeps odd sizes)"
    )


def _encode(path: Path, frames: np.ndarray, rate: float, comment: str, quality: int) -> None:
    """Writes frames ``(T, H, W, 3)`` as MP4 or WebM; each is shown for one part of the rate, exactly."""
    fraction = Fraction(rate).limit_denominator(1001)
    kind = path.suffix[1:]
    with av.open(str(path), "w", format=kind, options={"movflags": "+faststart"} if kind == "mp4" else {}) as container:
        container.metadata["comment"] = comment
        codec, options = CODECS[kind]
        stream: Any = container.add_stream(codec, rate=fraction, options={**options, "crf": str(quality)})
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
        context = stream.codec_context
        context.color_primaries = context.color_trc = context.colorspace = BT709
        context.color_range = LIMITED
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame = frame.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709, interpolation=EXACT)
            frame.pts, frame.time_base = number, 1 / fraction
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _gif(frames: np.ndarray, rate: float, comment: str) -> bytes:
    """Returns an endless GIF; each frame has the 256 colours that fit it best, and no dither, which would flicker.

    FFmpeg writes it, since Pillow leaves out frames that are equal to the one before, and so changes a clip's rate.
    """
    begins = [round(100 * number / rate) for number in range(len(frames) + 1)]
    content = io.BytesIO()
    options = {"loop": "0", "final_delay": str(begins[-1] - begins[-2])}
    with av.open(content, "w", format="gif", container_options=options) as container:
        stream: Any = container.add_stream("gif", rate=100, options={"gifflags": "0"})
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "pal8"
        for begin, pixels in zip(begins, frames, strict=False):
            frame = av.VideoFrame.from_ndarray(_quantize(pixels), format="pal8")
            frame.pts, frame.time_base = begin, Fraction(1, 100)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    written = content.getvalue()
    start = 13 + (3 << ((written[10] & 7) + 1) if written[10] & 0x80 else 0)  # after the header and its colours
    text = comment.encode()
    blocks = [text[at : at + 255] for at in range(0, len(text), 255)]
    comments = b"".join(bytes([len(block)]) + block for block in blocks)
    return written[:start] + b"\x21\xfe" + comments + b"\0" + written[start:]


def _quantize(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the numbers ``(H, W)`` of a picture's colours, and 256 opaque colours ``(256, 4)`` as alpha and RGB."""
    picture = Image.fromarray(pixels).quantize(256, Image.Quantize.MEDIANCUT, kmeans=1, dither=Image.Dither.NONE)
    colours = np.array(picture.getpalette("RGB"), np.uint8).reshape(-1, 3)
    palette = np.full((256, 4), (255, 0, 0, 0), np.uint8)
    palette[: len(colours), 1:] = colours
    return np.asarray(picture), palette


def read_metadata(file: File) -> dict[str, Any]:
    """Returns the metadata that ``VideoModality.write`` put into a video; empty for a video without any.

    Raises ValueError for a file that is no video.
    """
    path = path_of(file)
    source: Any = file if path is None else str(path)
    try:
        if Path(name_of(file)).suffix.lower() == ".gif":
            with Image.open(source) as picture:
                comments = [picture.info.get("comment", b"").decode("utf-8", "replace")]
        else:
            with av.open(source if path is None else address_of(path), metadata_errors="replace") as container:
                comments = [text for key, text in container.metadata.items() if key.lower() == "comment"]
    except Exception as error:
        raise VideoError(file, "not a video", f"cannot be read as a video: {words_of(error)}") from error
    return find_metadata(comments, KEY)

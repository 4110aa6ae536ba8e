"""Video files of every kind, written for tests: each frame carries its number in its brightness."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from PIL import Image
from torch import Tensor

BITS = 7
"""The bits of a frame's number: dark and bright columns, which no codec loses."""
CONTAINERS = {
    ".mp4": ("libx264", "yuv420p", {"g": "12", "bf": "2"}),
    ".mov": ("libx264", "yuv420p", {"g": "250"}),
    ".mkv": ("libx264", "yuv420p", {"x264-params": "open-gop=1:keyint=10:bframes=3"}),
    ".webm": ("libvpx-vp9", "yuv420p", {"g": "12", "cpu-used": "8", "deadline": "realtime"}),
    ".avi": ("mpeg4", "yuv420p", {"g": "12", "bf": "2", "qscale": "2"}),
    ".m4v": ("mpeg4", "yuv420p", {"g": "8"}),
    ".gif": ("gif", "rgb8", {}),
}
"""A codec for each container, with key frames far apart, B-frames and open groups among them."""


def numbered(number: int, height: int = 32, width: int = 56) -> np.ndarray:
    """A picture ``(H, W, 3)`` that says a number in its columns."""
    columns = [(number >> bit) & 1 for bit in range(BITS)]
    stripes = np.repeat(np.array(columns) * 190 + 30, math.ceil(width / BITS))[:width]
    return np.broadcast_to(stripes[None, :, None], (height, width, 3)).astype(np.uint8).copy()


def numbers(clip: Tensor) -> list[int]:
    """Returns the numbers that the frames of a clip ``(C, T, H, W)`` show."""
    means = clip.mean((0, 2))
    width = means.shape[1]
    size = math.ceil(width / BITS)
    places = [min(width - 1, bit * size + size // 2) for bit in range(BITS)]
    return [sum(int(frame[place] > 0) << bit for bit, place in enumerate(places)) for frame in means]


def write_frames(
    path: Path,
    frames: Sequence[np.ndarray],
    rate: float = 10.0,
    times: Sequence[float] | None = None,
    codec: tuple[str, str, dict[str, str]] | None = None,
) -> Path:
    """Writes pictures ``(H, W, 3)`` or ``(H, W, 4)`` as a video; times: seconds at which each is shown."""
    name, pixel_format, options = codec or CONTAINERS[path.suffix]
    fraction = Fraction(rate).limit_denominator(1001)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(name, rate=fraction, options=options)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pixel_format
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgba" if pixels.shape[2] == 4 else "rgb24")
            frame.pts, frame.time_base = number, 1 / fraction
            if times is not None:
                frame.pts, frame.time_base = round(times[number] * 1000), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_numbered(path: Path, num: int, rate: float = 10.0, **how: Any) -> Path:
    """Writes frames 0 … num − 1."""
    return write_frames(path, [numbered(number) for number in range(num)], rate, **how)


def write_webp(path: Path, num: int, durations: Sequence[int]) -> Path:
    """Writes frames 0 … num − 1 as an animated WebP, each shown for so many milliseconds."""
    first, *rest = [Image.fromarray(numbered(number)) for number in range(num)]
    first.save(path, save_all=True, append_images=rest, duration=list(durations), lossless=True)
    return path


def write_folder(path: Path, num: int, suffix: str = ".png") -> Path:
    """Writes frames 0 … num − 1 as pictures, their numbers not filled up with zeros."""
    path.mkdir(parents=True)
    for number in range(num):
        Image.fromarray(numbered(number)).save(path / f"frame-{number}{suffix}")
    return path


def damaged(source: Path, target: Path, places: Sequence[int]) -> Path:
    """A copy of a video whose packets at some places are zeros."""
    with av.open(str(source)) as given, av.open(str(target), "w") as made:
        stream = given.streams.video[0]
        copy = made.add_stream_from_template(stream)
        for number, packet in enumerate(packet for packet in given.demux(stream) if packet.size):
            if number in places:
                bad = av.Packet(bytes(packet.size))
                bad.pts, bad.dts, bad.duration, bad.time_base = (
                    packet.pts,
                    packet.dts,
                    packet.duration,
                    packet.time_base,
                )
                packet = bad
            packet.stream = copy
            made.mux(packet)
    return target


def rotated(path: Path, clockwise: int) -> Path:
    """An MP4 whose header says that it is to be turned clockwise by 90, 180 or 270 degrees when it is shown."""
    one = 1 << 16
    a, b, c, d = {90: (0, one, -one, 0), 180: (-one, 0, 0, -one), 270: (0, -one, one, 0)}[clockwise]
    content = bytearray(path.read_bytes())
    at = content.index(b"tkhd") + 4 + 40
    for place, value in ((0, a), (4, b), (12, c), (16, d)):
        content[at + place : at + place + 4] = value.to_bytes(4, "big", signed=True)
    path.write_bytes(content)
    return path


def moving(num: int, size: int = 32) -> Tensor:
    """A smooth pattern ``(3, num, size, size)`` in colour that moves to the right."""
    turn = 2 * math.pi * torch.arange(size) / size
    frames = []
    for number in range(num):
        x, y = turn[None] - 2 * math.pi * number / num, turn[:, None]
        blue = y.sin().expand(size, size)
        frames.append(0.8 * torch.stack([x.sin() * y.cos(), (x + y).cos(), blue]))
    return torch.stack(frames, 1)

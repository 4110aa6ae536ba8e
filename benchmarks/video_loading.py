"""Measures reading of random windows of videos by seeking, against PyAV's decoding of the same file from its start.

    python benchmarks/video_loading.py [--seconds 60] [--rate 30] [--size 240 320] [--clips 100] [VIDEO ...]

Without a file it writes one of moving noise (H.264, a key frame every 250 frames at most, as encoders do by default).
Printed for each file: frames a second of plain decoding (the decoder alone, and with each frame brought to RGB), and of
``VideoModality.read_transformed`` at the recipe's rate and at the file's own, one thread each.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch

from modalities.video import VideoModality


def main() -> None:
    """Prints a table for each file."""
    commands = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands.add_argument("videos", nargs="*", type=Path)
    commands.add_argument("--seconds", type=float, default=20.0)
    commands.add_argument("--rate", type=float, default=30.0)
    commands.add_argument("--size", type=int, nargs=2, default=(240, 320), metavar=("HEIGHT", "WIDTH"))
    commands.add_argument("--clips", type=int, default=100)
    commands.add_argument("--gop", type=int, default=250, help="most frames from key frame to key frame")
    parsed = commands.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        for video in parsed.videos or [_write(Path(folder) / "noise.mp4", parsed)]:
            _report(video, parsed.clips)


def _write(path: Path, parsed: Any) -> Path:
    """Writes a video in which a large part moves smoothly over a still background, and returns its path."""
    rng = np.random.default_rng(0)
    height, width = parsed.size
    field = np.kron(rng.integers(0, 255, (height // 8 + 1, width // 8 + 1, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=Fraction(parsed.rate), options={"g": str(parsed.gop)})
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        for number in range(round(parsed.seconds * parsed.rate)):
            pixels = field[:height, :width].copy()
            pixels[height // 4 : 3 * height // 4] = np.roll(pixels[height // 4 : 3 * height // 4], 2 * number, 1)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def _report(video: Path, num_clips: int) -> None:
    print(f"{video.name}: frames of it a second")
    plain = _rate(lambda: _plain(video, False))
    print(f"  plain decoding, from start to end           {plain:8.0f}")
    print(f"  the same, each frame to RGB                 {_rate(lambda: _plain(video, True)):8.0f}")
    for name, rate in (("8 frames/s", 8.0), ("the file's rate", None)):
        modality = VideoModality(num_frames=16, frame_rate=rate, size=64, padding="hold")
        modality.read_transformed(video)  # measures the file once

        def clips(modality: VideoModality = modality) -> int:
            for seed in range(num_clips):
                modality.read_transformed(video, torch.Generator().manual_seed(seed))
            return 16 * num_clips

        found = _rate(clips)
        print(
            f"  random clips of 16 at {name:<16}      {found:8.0f}   ({found / 16:.1f} clips/s, {found / plain:.2f} ×)"
        )


def _plain(video: Path, colours: bool) -> int:
    num = 0
    with av.open(str(video)) as container:
        container.streams.video[0].codec_context.thread_count = 1
        for frame in container.decode(video=0):
            if colours:
                frame.to_ndarray(format="rgb24")
            num += 1
    return num


def _rate(work: Callable[[], int]) -> float:
    begun = time.perf_counter()
    num = work()
    return num / (time.perf_counter() - begun)


if __name__ == "__main__":
    main()

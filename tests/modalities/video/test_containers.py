"""Every container and codec that the bundled FFmpeg writes, under the suffixes that are read: all frames, in place.

A clip's frames carry their number; windows at its start, in its middle and at its end show the right ones.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest

from modalities.video import VideoModality
from modalities.video.reading import open_footage
from scm_media.modality import Segment
from tests.modalities.video.files import numbered, numbers

NUM, WINDOW = 60, 8


@dataclass(frozen=True)
class Codec:
    """The settings of an encoder: pixel format, options, and the size and rate that it is made for."""

    pixel_format: str = "yuv420p"
    options: dict[str, str] = field(default_factory=dict)
    size: tuple[int, int] = (64, 48)
    rate: int = 10
    full_range: bool = False


BIDIRECTIONAL = {"bf": "2", "g": "12"}
FAST = {"deadline": "realtime", "cpu-used": "8", "g": "12"}
CODECS = {
    "amv": Codec("yuvj420p", full_range=True),
    "asv1": Codec(),
    "asv2": Codec(),
    "avrp": Codec("gbrp10le"),
    "cfhd": Codec("yuv422p10le"),
    "cinepak": Codec("rgb24"),
    "cljr": Codec("yuv411p", {"strict": "-2"}),
    "dnxhd": Codec("yuv422p", {"profile": "dnxhr_sq"}, (256, 128)),
    "dpx": Codec("rgb24"),
    "dvvideo": Codec("yuv420p", {}, (720, 576), 25),
    "dxv": Codec("rgba"),
    "exr": Codec("gbrpf32le"),
    "ffv1": Codec(),
    "ffvhuff": Codec(),
    "flashsv": Codec("bgr24"),
    "flv": Codec(),
    "gif": Codec("rgb8"),
    "h261": Codec("yuv420p", {}, (176, 144), 25),
    "h263": Codec("yuv420p", {}, (176, 144), 25),
    "h263p": Codec(),
    "huffyuv": Codec("yuv422p"),
    "jpeg2000": Codec(),
    "jpegls": Codec("rgb24"),
    "libsvtav1": Codec("yuv420p", {"preset": "12", "g": "20"}),
    "libvpx": Codec("yuv420p", FAST),
    "libvpx-vp9": Codec("yuv420p", FAST),
    "libx264": Codec("yuv420p", {**BIDIRECTIONAL, "b-pyramid": "normal"}),
    "libx264rgb": Codec("rgb24", BIDIRECTIONAL),
    "libx265": Codec("yuv420p", {"x265-params": "keyint=12:bframes=3:log-level=none"}),
    "ljpeg": Codec("yuv420p", {"strict": "-2"}, full_range=True),
    "magicyuv": Codec(),
    "mjpeg": Codec("yuvj420p", full_range=True),
    "mpeg1video": Codec("yuv420p", BIDIRECTIONAL, rate=25),
    "mpeg2video": Codec("yuv420p", {**BIDIRECTIONAL, "qscale": "2"}, rate=25),
    "mpeg4": Codec("yuv420p", {**BIDIRECTIONAL, "qscale": "2"}),
    "msmpeg4": Codec(),
    "msmpeg4v2": Codec(),
    "msvideo1": Codec("rgb555le"),
    "png": Codec("rgb24"),
    "prores": Codec("yuv422p10le"),
    "prores_aw": Codec("yuv422p10le"),
    "prores_ks": Codec("yuv422p10le"),
    "qtrle": Codec("rgb24"),
    "r10k": Codec("gbrp10le"),
    "r210": Codec("gbrp10le"),
    "rawvideo": Codec("uyvy422"),
    "rpza": Codec("rgb555le"),
    "sgi": Codec("rgb24"),
    "snow": Codec("yuv420p", {"strict": "-2"}),
    "speedhq": Codec(),
    "svq1": Codec("yuv410p"),
    "targa": Codec("bgr24"),
    "tiff": Codec("rgb24"),
    "utvideo": Codec(),
    "v210": Codec("yuv422p"),
    "v308": Codec("yuv444p"),
    "v408": Codec("yuva444p"),
    "v410": Codec("yuv444p10le"),
    "wmv1": Codec(),
    "wmv2": Codec(),
    "y41p": Codec("yuv411p"),
    "yuv4": Codec(),
    "zlib": Codec("bgr24"),
}
WRITTEN = {
    ".mp4": "ffv1 jpeg2000 libsvtav1 libvpx-vp9 libx264 libx264rgb libx265 mjpeg mpeg1video mpeg2video mpeg4 png",
    ".m4v": "libx264 libx264rgb mpeg4",
    ".mov": "avrp cfhd cinepak dnxhd dpx dvvideo dxv exr gif h263 jpeg2000 libx264 libx264rgb libx265 magicyuv mjpeg "
    "mpeg1video mpeg2video mpeg4 msmpeg4 png prores prores_aw prores_ks qtrle r10k r210 rawvideo rpza sgi svq1 targa "
    "tiff v210 v308 v408 v410 y41p yuv4",
    ".mkv": "ffv1 jpeg2000 libsvtav1 libvpx libvpx-vp9 libx264 libx264rgb libx265 mjpeg mpeg1video mpeg2video mpeg4 "
    "msmpeg4 prores prores_aw prores_ks rawvideo snow",
    ".webm": "libsvtav1 libvpx libvpx-vp9",
    ".avi": "amv asv1 asv2 cfhd cinepak cljr dpx dvvideo ffv1 ffvhuff flashsv flv h261 h263 h263p huffyuv jpeg2000 "
    "jpegls libsvtav1 libvpx libvpx-vp9 libx264 libx264rgb ljpeg magicyuv mjpeg mpeg1video mpeg2video mpeg4 msmpeg4 "
    "msmpeg4v2 msvideo1 png r10k r210 rawvideo rpza snow speedhq svq1 targa utvideo v210 v308 v408 v410 wmv1 wmv2 y41p "
    "yuv4 zlib",
    ".gif": "gif",
}
"""Containers of the bundled FFmpeg; one of another build may lack encoders, such as x265 by its licence."""
AVAILABLE = [
    (suffix, name) for suffix, names in WRITTEN.items() for name in names.split() if name in av.codecs_available
]


def write(path: Path, name: str, num: int = NUM) -> Path:
    """Writes frames 0 … num − 1 with an encoder."""
    codec = CODECS[name]
    width, height = codec.size
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(name, rate=codec.rate, options=codec.options)
        stream.width, stream.height, stream.pix_fmt = width, height, codec.pixel_format
        if codec.full_range:
            stream.codec_context.color_range = 2
        for number in range(num):
            frame = av.VideoFrame.from_ndarray(numbered(number, height, width), format="rgb24")
            frame = frame.reformat(format=codec.pixel_format, dst_color_range=2 if codec.full_range else None)
            frame.pts, frame.time_base = number, Fraction(1, codec.rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def test_the_bundled_encoders_are_all_there():
    assert {name for names in WRITTEN.values() for name in names.split()} == set(CODECS)
    assert len(AVAILABLE) >= 110
    assert {suffix for suffix, _ in AVAILABLE} == VideoModality.suffixes - {".webp"}


@pytest.mark.parametrize(("suffix", "name"), AVAILABLE)
def test_all_frames_are_read_and_windows_show_the_right_ones(tmp_path, suffix, name):
    path, rate = write(tmp_path / f"a{suffix}", name), CODECS[name].rate
    with av.open(str(path)) as container:
        num = sum(1 for _ in container.decode(container.streams.video[0]))
    assert num == NUM
    with open_footage(path, rate) as footage:
        assert sum(1 for _ in footage.frames(0.0)) == num
        assert footage.rate == pytest.approx(rate, rel=1e-6)
        assert footage.duration == pytest.approx(num / rate, abs=1e-6)
        size = footage.height, footage.width
    modality = VideoModality(num_frames=WINDOW, frame_rate=rate, size=size, window="start")
    modality.validate(path)
    for first in (0, 27, NUM - WINDOW):
        clip, _ = modality.read_transformed(Segment(path, first / rate))
        assert numbers(clip) == list(range(first, first + WINDOW))

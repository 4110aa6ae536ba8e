"""Videos are read as players show them: turned and mirrored by the whole display matrix of their header."""

from __future__ import annotations

import io
import math
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from modalities.video import VideoModality
from tests.modalities.video.files import write_frames, write_numbered

ONE = 1 << 16
MATRICES = {
    "upright": ((1, 0, 0, 1), lambda pixels: pixels),
    "turned clockwise": ((0, 1, -1, 0), lambda pixels: np.rot90(pixels, -1)),
    "turned by 180": ((-1, 0, 0, -1), lambda pixels: np.rot90(pixels, 2)),
    "turned counter-clockwise": ((0, -1, 1, 0), lambda pixels: np.rot90(pixels, 1)),
    "left and right swapped": ((-1, 0, 0, 1), lambda pixels: pixels[:, ::-1]),
    "upside down": ((1, 0, 0, -1), lambda pixels: pixels[::-1]),
    "transposed": ((0, 1, 1, 0), lambda pixels: pixels.swapaxes(0, 1)),
    "transposed the other way": ((0, -1, -1, 0), lambda pixels: np.rot90(pixels.swapaxes(0, 1), 2)),
}
"""The numbers a, b, c, d of the matrix, by which a point (x, y), y downwards, comes to (a x + c y, b x + d y)."""


def corners(height: int = 32, width: int = 48) -> np.ndarray:
    """A picture ``(H, W, 3)`` that differs from itself however it is turned or mirrored."""
    pixels = np.full((height, width, 3), 128, np.uint8)
    pixels[: height // 4, : width // 4] = 255
    pixels[-height // 4 :, : width // 4] = 0
    return pixels


def shown(path: Path, matrix: tuple[float, ...]) -> Path:
    """An MP4 with these numbers in the matrix of its track's header."""
    content = bytearray(path.read_bytes())
    at = content.index(b"tkhd") + 4 + 40
    for place, value in zip((0, 4, 12, 16), matrix, strict=True):
        content[at + place : at + place + 4] = round(value * ONE).to_bytes(4, "big", signed=True)
    path.write_bytes(content)
    return path


def expected(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1) / 127.5 - 1


@pytest.mark.parametrize("name", MATRICES)
def test_all_eight_ways_are_read_as_they_are_shown(tmp_path, name):
    matrix, change = MATRICES[name]
    path = shown(write_frames(tmp_path / "a.mp4", [corners()] * 8), matrix)
    modality = VideoModality(num_frames=8, frame_rate=10, size=[32, 48])
    clip, upright = modality.read(path), expected(change(corners()))
    assert clip.shape[-2:] == upright.shape[-2:]
    assert (clip[:, 3] - upright).abs().mean() < 0.03
    modality.validate(path)
    assert not any("angle" in remark for remark in modality.data_warnings([]))


def test_wide_pixels_are_widened_before_they_are_turned(tmp_path):
    wide = write_frames(tmp_path / "a.mp4", [corners()] * 8, codec=("libx264", "yuv420p", {"x264-params": "sar=2/1"}))
    clip = VideoModality(num_frames=8, frame_rate=10).read(shown(wide, MATRICES["transposed"][0]))
    assert clip.shape[-2:] == (96, 32)
    assert (clip[:, 3] - expected(np.repeat(corners(), 2, 1).swapaxes(0, 1))).abs().mean() < 0.04


@pytest.mark.parametrize(("degrees", "quarters"), [(30, 0), (60, 1), (100, 1), (200, 2), (-80, 3)])
def test_another_angle_is_read_as_the_nearest_and_remarked_on(tmp_path, degrees, quarters):
    turn = math.radians(degrees)
    matrix = (math.cos(turn), math.sin(turn), -math.sin(turn), math.cos(turn))
    path = shown(write_frames(tmp_path / "a.mp4", [corners()] * 8), matrix)
    modality = VideoModality(num_frames=8, frame_rate=10, size=[32, 48])
    modality.validate(path)
    clip = modality.read(path)
    assert (clip[:, 3] - expected(np.rot90(corners(), -quarters))).abs().mean() < 0.03
    assert any("angle" in remark and str(path) in remark for remark in modality.data_warnings([]))


@pytest.mark.parametrize("suffix", [".avi", ".mov"])
def test_pictures_of_a_camera_in_a_video_are_read_as_they_were_held(tmp_path, suffix):
    """PyAV has no name for the EXIF that FFmpeg gives along with such frames."""
    exif, content = Image.Exif(), io.BytesIO()
    exif[0x0112] = 6
    Image.fromarray(corners()).save(content, "JPEG", quality=95, exif=exif)
    path = tmp_path / f"a{suffix}"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=10)
        stream.height, stream.width, stream.pix_fmt = 32, 48, "yuvj420p"
        stream.codec_context.color_range = 2
        container.start_encoding()
        for number in range(8):
            packet = av.Packet(content.getvalue())
            packet.stream, packet.pts, packet.dts, packet.time_base = stream, number, number, Fraction(1, 10)
            packet.is_keyframe = True
            container.mux(packet)
    clip = VideoModality(num_frames=8, frame_rate=10).read(path)
    assert clip.shape == (3, 8, 48, 32)
    assert (clip[:, 3] - expected(np.rot90(corners(), -1))).abs().mean() < 0.03


def test_the_default_stream_is_read_and_no_cover(tmp_path):
    def frames(level: int) -> list[np.ndarray]:
        return [np.full((32, 48, 3), level + number, np.uint8) for number in range(8)]

    for name, level in (("dark.mkv", 20), ("bright.mkv", 220)):
        write_frames(tmp_path / name, frames(level))
    for default in (0, 1):
        path = tmp_path / f"both-{default}.mkv"
        with av.open(str(path), "w") as made:
            sources = [av.open(str(tmp_path / name)) for name in ("dark.mkv", "bright.mkv")]
            copies = [made.add_stream_from_template(source.streams.video[0]) for source in sources]
            for place, copy in enumerate(copies):
                copy.disposition = av.stream.Disposition.default if place == default else av.stream.Disposition(0)
            for source, copy in zip(sources, copies, strict=True):
                for packet in source.demux(source.streams.video[0]):
                    if packet.size:
                        packet.stream = copy
                        made.mux(packet)
                source.close()
        with av.open(str(path)) as container:
            flags = [bool(stream.disposition & av.stream.Disposition.default) for stream in container.streams.video]
        assert flags == [default == 0, default == 1]
        level = VideoModality(num_frames=8, frame_rate=10).read(path).mean()
        assert level == pytest.approx((20, 220)[default] / 127.5 - 1, abs=0.06)


def test_a_cover_is_not_taken_for_the_video(tmp_path):
    write_numbered(tmp_path / "a.mkv", 8)
    with av.open(str(tmp_path / "a.mkv")) as source, av.open(str(tmp_path / "b.mp4"), "w") as made:
        cover = made.add_stream("mjpeg", rate=1)
        cover.height, cover.width, cover.pix_fmt = 64, 64, "yuvj420p"
        cover.codec_context.color_range = 2
        cover.disposition = av.stream.Disposition.attached_pic
        copy = made.add_stream_from_template(source.streams.video[0])
        copy.disposition = av.stream.Disposition(0)
        picture = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
        picture = picture.reformat(format="yuvj420p", dst_color_range=2)
        for packet in [*cover.encode(picture), *cover.encode(None)]:
            made.mux(packet)
        for packet in source.demux(source.streams.video[0]):
            if packet.size:
                packet.stream = copy
                made.mux(packet)
    with av.open(str(tmp_path / "b.mp4")) as container:
        assert [stream.codec_context.name for stream in container.streams.video] == ["h264", "mjpeg"]
    assert VideoModality(num_frames=8, frame_rate=10).read(tmp_path / "b.mp4").shape == (3, 8, 32, 56)

"""Folders of pictures that are one clip: what is transparent, which side is up, and which pictures are damaged."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, TiffImagePlugin

from modalities.video import VideoModality
from modalities.video.footage import VideoError

NUM = 4


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(levels: np.ndarray, depth: int, key: tuple[int, ...] | None = None, extra: bytes = b"") -> bytes:
    """A PNG of levels ``(H, W)`` (grey) or ``(H, W, 3)`` of so many bits, ``key`` of them transparent."""
    rows = []
    for row in levels:
        bits = "".join(format(int(level), f"0{depth}b") for level in row.reshape(-1))
        bits += "0" * (-len(bits) % 8)
        rows.append(b"\0" + bytes(int(bits[at : at + 8], 2) for at in range(0, len(bits), 8)))
    colour = 0 if levels.ndim == 2 else 2
    header = struct.pack(">IIBBBBB", levels.shape[1], levels.shape[0], depth, colour, 0, 0, 0)
    transparent = b"" if key is None else chunk(b"tRNS", struct.pack(f">{len(key)}H", *key))
    parts = [
        chunk(b"IHDR", header),
        extra,
        transparent,
        chunk(b"IDAT", zlib.compress(b"".join(rows))),
        chunk(b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def clip_of(folder: Path, content: bytes, suffix: str, background: float = 0.0) -> torch.Tensor:
    """Returns the sample that is read from a folder of frames, all the same."""
    folder.mkdir()
    for number in range(NUM):
        (folder / f"{number}{suffix}").write_bytes(content)
    modality = VideoModality(num_frames=NUM, frame_rate=10, background=background)
    VideoModality(num_frames=NUM, frame_rate=10, size=8).validate(folder)
    return modality.read(folder)


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("place", [0, 2, 3])
def test_the_transparent_level_of_a_grey_png_shows_the_background(tmp_path, depth, place):
    most = (1 << depth) - 1
    levels = [0, most // 3, most - most // 3, most] if depth > 1 else [0, 0, 1, 1]
    picture = np.tile(np.repeat(levels, 4), (8, 1))
    found = clip_of(tmp_path / "a", png(picture, depth, (levels[place],)), ".png", background=0.25)
    expected = torch.tensor([0.25 if level == levels[place] else 2 * level / most - 1 for level in levels])
    assert (found[:, 1, 3, 1::4] - expected).abs().max() < 0.01


@pytest.mark.parametrize("depth", [8, 16])
def test_the_transparent_colour_of_a_png_shows_the_background(tmp_path, depth):
    scale = 1 if depth == 8 else 257
    key, other = (10 * scale, 20 * scale, 30 * scale), (200 * scale, 100 * scale, 50 * scale)
    picture = np.array([[key, other] * 4] * 8)
    found = clip_of(tmp_path / "a", png(picture, depth, key), ".png", background=0.5)
    assert (found[:, :, :, ::2] - 0.5).abs().max() < 0.01
    assert (found[:, 1, 3, 1] - torch.tensor([200, 100, 50]) / 127.5 + 1).abs().max() < 0.01


@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt", b"iCCP"])
def test_a_picture_with_large_text_is_read(tmp_path, kind):
    text = zlib.compress(b"so many words " * 100_000)
    extra = chunk(kind, b"icc\0" + (b"\1\0\0\0" if kind == b"iTXt" else b"\0") + text)
    with pytest.raises(ValueError, match="too large"), Image.open(io.BytesIO(png(np.zeros((8, 8)), 8, extra=extra))):
        pass
    found = clip_of(tmp_path / "a", png(np.full((8, 8), 200), 8, extra=extra), ".png")
    assert (found - 200 / 127.5 + 1).abs().max() < 0.01


def corners(height: int = 32, width: int = 48) -> np.ndarray:
    """A picture ``(H, W, 3)`` that differs from itself however it is turned or mirrored."""
    pixels = np.full((height, width, 3), 128, np.uint8)
    pixels[: height // 4, : width // 4] = 255
    pixels[-height // 4 :, : width // 4] = 0
    return pixels


def exif_of(orientation: int, broken: str = "") -> bytes:
    """EXIF with an orientation, and what Pillow cannot write back: a word for numbers, a number for a word."""
    entries = [(0x0112, 3, 1, struct.pack("<HH", orientation, 0))]
    if broken == "gps":
        entries.append((0x8825, 2, 4, b"oops"))
    elif broken == "float":
        entries.append((0x010F, 11, 1, struct.pack("<f", 1.5)))
    content = b"II*\0" + struct.pack("<IH", 8, len(entries))
    for tag, kind, num, value in entries:
        content += struct.pack("<HHI", tag, kind, num) + value
    return b"Exif\0\0" + content + bytes(4)


TURNED = {
    1: lambda pixels: pixels,
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: np.rot90(pixels, 2),
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: np.rot90(pixels.swapaxes(0, 1), 2),
    8: lambda pixels: np.rot90(pixels, 1),
}


@pytest.mark.parametrize("broken", ["", "gps", "float"])
@pytest.mark.parametrize("orientation", [*TURNED, 99])
def test_pictures_are_read_as_they_were_held_whatever_else_is_in_exif(tmp_path, orientation, broken):
    content = io.BytesIO()
    Image.fromarray(corners()).save(content, "JPEG", quality=95, exif=exif_of(orientation, broken))
    found = clip_of(tmp_path / "a", content.getvalue(), ".jpg")
    upright = TURNED.get(orientation, TURNED[1])(corners())
    assert found.shape[-2:] == upright.shape[:2]
    assert (found[:, 1] - torch.from_numpy(upright.copy()).permute(2, 0, 1) / 127.5 + 1).abs().mean() < 0.03


def test_the_orientation_is_read_where_pillow_reads_no_exif_at_all(tmp_path, monkeypatch):
    def fail(self, tag, legacy_api=True):
        raise struct.error("argument out of range")

    content = io.BytesIO()
    Image.fromarray(corners()).save(content, "JPEG", quality=95, exif=exif_of(6))
    monkeypatch.setattr(TiffImagePlugin.ImageFileDirectory_v2, "load", fail)
    assert clip_of(tmp_path / "a", content.getvalue(), ".jpg").shape[-2:] == (48, 32)


def jpeg(seed: int, size: int = 128, **options) -> bytes:
    """A JPEG of soft noise."""
    noise = np.random.default_rng(seed).integers(0, 255, (size // 8, size // 8, 3)).astype(np.uint8)
    content = io.BytesIO()
    Image.fromarray(noise).resize((size, size), Image.Resampling.BICUBIC).save(content, "JPEG", quality=90, **options)
    return content.getvalue()


KINDS = {
    "baseline": {},
    "optimised": {"optimize": True},
    "progressive": {"progressive": True},
    "restarts": {"restart_marker_blocks": 3},
    "full colour": {"subsampling": 0},
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_jpeg_that_lacks_its_end_marker_alone_is_read(tmp_path, kind):
    for seed in range(6):
        whole = jpeg(seed, **KINDS[kind])
        assert whole.endswith(b"\xff\xd9")
        expected = clip_of(tmp_path / f"whole-{seed}", whole, ".jpg")
        for name, content in (("none", whole[:-2]), ("half", whole[:-1]), ("more", whole + b"trailing bytes" * 9)):
            assert torch.equal(clip_of(tmp_path / f"{name}-{seed}", content, ".jpg"), expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fraction", [0.3, 0.6, 0.97])
def test_a_jpeg_whose_data_are_cut_or_were_never_written_is_damaged(tmp_path, kind, fraction):
    for seed in range(4):
        whole = jpeg(seed, **KINDS[kind])
        start = whole.index(b"\xff\xda")
        at = start + 14 + round(fraction * (len(whole) - start - 14))
        wrong = {
            "cut": whole[:at],
            "zeros": whole[:at] + bytes(len(whole) - at),
        }
        for name, content in wrong.items():
            with pytest.raises(VideoError, match=r"cannot be decoded, 0\.jpg: \w+") as caught:
                clip_of(tmp_path / f"{name}-{seed}", content, ".jpg")
            assert caught.value.reason == "damaged"


@pytest.mark.parametrize("level", [0, 128, 255])
def test_a_flat_picture_may_be_coded_in_zeros(tmp_path, level):
    content = io.BytesIO()
    Image.new("L", (512, 512), level).save(content, "JPEG", quality=90, optimize=True)
    whole = content.getvalue()
    assert bytes(64) in whole[whole.index(b"\xff\xda") :]
    for name, given in (("whole", whole), ("no-end", whole[:-2])):
        assert (clip_of(tmp_path / name, given, ".jpg") - level / 127.5 + 1).abs().max() < 0.02

"""Files of data that are made to hang or to fill memory are refused by their headers, as one counted file each."""

from __future__ import annotations

import os
import resource
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from modalities.image import ImageModality
from modalities.video import VideoModality
from scm_media.data.entries import Entry

PROGRAM = """
import resource, sys, time
from pathlib import Path
from modalities.image import ImageModality
from modalities.video import VideoModality
from scm_media.data.entries import Entry
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path, modality in zip(map(Path, sys.argv[1::2]), map(eval, sys.argv[2::2])):
    began = time.monotonic()
    try:
        Entry(path, path.name).validate(modality)
        Entry(path, path.name).read_transformed(modality, None)
        print("read")
    except ValueError as error:
        assert "\\n" not in str(error)
        print(error)
    assert time.monotonic() - began < 5
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(path: Path, width: int, height: int, bits: int = 8) -> Path:
    """Writes a black grey picture of any size, of which a million pixels take a kilobyte."""
    row, pack = bytes(1 + (width * bits + 7) // 8), zlib.compressobj(9)
    data = b"".join([*(pack.compress(row) for _ in range(height)), pack.flush()])
    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b""))
    return path


def outcomes(*pairs: tuple[Path, str]) -> list[str]:
    """Returns what reading each file for a modality says, in one new process.

    Each takes less than five seconds, and all of them less than a gigabyte.
    """
    words = [str(word) for pair in pairs for word in pair]
    done = subprocess.run([sys.executable, "-c", PROGRAM, *words], capture_output=True, text=True, check=True)
    *said, kilobytes = done.stdout.splitlines()
    assert int(kilobytes) < 1 << 20
    return said


@pytest.mark.parametrize(
    ("width", "height", "bits"), [(1 << 26, 1, 8), (1 << 26, 1, 1), (1 << 25, 2, 1), (1, 1 << 20, 8)]
)
def test_strips_of_millions_by_one_are_refused(tmp_path, width, height, bits):
    strip = png(tmp_path / "strip.png", width, height, bits)
    assert strip.stat().st_size < 1 << 20
    for fit in ("pad", "crop", "resize"):
        with pytest.raises(ValueError, match=r"strip\.png cannot be decoded as a picture: .*a side may have 65535"):
            Entry(strip, strip.name).validate(ImageModality(size=32, fit=fit))
    clip = tmp_path / "clip"
    clip.mkdir()
    for number in range(2):
        (clip / f"{number}.png").write_bytes(strip.read_bytes())
    with pytest.raises(ValueError, match="a side may have 65535 pixels"):
        Entry(clip, clip.name).validate(VideoModality(num_frames=2, frame_rate=8, size=16))


def test_a_strip_that_grows_is_refused_and_padded_ones_and_the_largest_pictures_are_read(tmp_path):
    strip, padded, cropped = (
        png(tmp_path / "strip.png", 65_535, 1),
        "ImageModality(size=64)",
        "ImageModality(size=64, fit='crop')",
    )
    refused, *others = outcomes(
        (strip, cropped),
        (strip, padded),
        (png(tmp_path / "wide.png", 4000, 500), cropped),
        (png(tmp_path / "large.png", 8192, 8192), padded),
    )
    assert "would have 4194240×64 before it is cropped" in refused
    assert others == ["read"] * 3


@pytest.mark.parametrize("kind", ["pipe", "endless", "folder"])
@pytest.mark.parametrize("modality", [ImageModality(size=8), VideoModality(num_frames=1, frame_rate=8, size=16)])
def test_what_is_no_regular_file_is_refused_at_once(tmp_path, kind, modality):
    path = tmp_path / "x.png"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "endless":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=r"x\.png"):
        Entry(path, path.name).validate(modality)
    inside = tmp_path / "clip"
    inside.mkdir()
    path.rename(inside / "0.png")
    png(inside / "1.png", 32, 32)
    if isinstance(modality, VideoModality):
        with pytest.raises(ValueError, match="clip"):
            Entry(inside, inside.name).validate(modality)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 19

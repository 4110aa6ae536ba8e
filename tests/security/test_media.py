"""Files of data that are made to hang or to fill memory are refused by their headers, as one counted file each."""

from __future__ import annotations

import os
import resource
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import pytest

from modalities.image import ImageModality
from modalities.video import VideoModality
from scm_media.data.entries import Entry

PROGRAM = """
import resource, sys
from pathlib import Path
from modalities.image import ImageModality
from modalities.video import VideoModality
from scm_media.data.entries import Entry
path, modality = Path(sys.argv[1]), eval(sys.argv[2])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    Entry(path, path.name).validate(modality)
    Entry(path, path.name).read_transformed(modality, None)
    print("read")
except ValueError as error:
    assert "\\n" not in str(error)
    print(error)
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


def outcome(path: Path, modality: str) -> str:
    """Returns what reading says, in a process of its own, in which it takes less than five seconds and a gigabyte."""
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(path), modality], capture_output=True, text=True, check=True
    )
    said, kilobytes = done.stdout.strip().rpartition("\n")[::2]
    assert int(kilobytes) < 1 << 20 and time.monotonic() - began < 5 + 10  # of which starting takes some
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


def test_a_strip_that_grows_when_it_is_cropped_is_refused_and_padded_ones_are_read(tmp_path):
    strip = png(tmp_path / "strip.png", 65_535, 1)
    assert "would have 4194240×64 before it is cropped" in outcome(strip, "ImageModality(size=64, fit='crop')")
    assert outcome(strip, "ImageModality(size=64)") == "read"
    assert outcome(png(tmp_path / "wide.png", 4000, 500), "ImageModality(size=64, fit='crop')") == "read"


def test_the_largest_picture_there_may_be_keeps_within_a_gigabyte_in_grey(tmp_path):
    assert outcome(png(tmp_path / "large.png", 8192, 8192), "ImageModality(size=64)") == "read"


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

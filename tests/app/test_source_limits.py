"""Files that are too large to be edited on a shared server are refused by size and header, before they are decoded."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from PIL import Image

from scm_media.app import source_limits
from scm_media.app.edits import open_source
from scm_media.pipeline import Pipeline, load
from tests.pipeline.tiny_media import write_tiny


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, Pipeline]:
    folder = tmp_path_factory.mktemp("models")
    return {kind: load(write_tiny(kind, folder / kind), "cpu") for kind in ("image", "audio", "video")}


@pytest.fixture
def unread(models, monkeypatch) -> None:
    """Lets a test fail that decodes a file as a whole."""

    def read_whole(self: object, path: Path) -> None:
        raise AssertionError(f"{path} was decoded")

    for each in models.values():
        monkeypatch.setattr(type(each.modality), "read_whole", read_whole)


def write_claim(file: Path, width: int, height: int) -> Path:
    """Writes a PNG of a few bytes whose header claims a picture of this size."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)), (b"IDAT", zlib.compress(b"\0"))]
    parts = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    ]
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    return file


@pytest.mark.parametrize(("kind", "suffix"), [("image", ".png"), ("audio", ".wav"), ("video", ".mp4")])
def test_a_large_file_is_refused_by_its_size(models, unread, tmp_path, kind, suffix):
    file = tmp_path / f"large{suffix}"
    with file.open("wb") as opened:
        opened.truncate(3 << 30)  # without a block on the disk
    with pytest.raises(ValueError, match=r"^large\.\w+ has 3 GiB, a file that is edited here 0\.5 GiB at most: cut it"):
        open_source(models[kind], file)


@pytest.mark.parametrize("kind", ["image", "video"])
@pytest.mark.parametrize(
    ("sides", "claim"),
    [((8000, 6001), "8000×6001 pixels, 48 million at most"), ((90000, 9000), "more than 48 million")],
)
def test_a_picture_is_refused_by_the_pixels_that_its_header_claims(models, unread, tmp_path, kind, sides, claim):
    with pytest.raises(ValueError, match=rf"^claims\.png has .*{claim}"):
        open_source(models[kind], write_claim(tmp_path / "claims.png", *sides))


def test_an_animation_is_refused_by_all_of_its_frames(models, unread, tmp_path, monkeypatch):
    file = tmp_path / "moves.webp"
    frames = [Image.new("RGB", (24, 16), (9 * number, 0, 0)) for number in range(5)]
    frames[0].save(file, save_all=True, append_images=frames[1:], duration=100, lossless=True)
    monkeypatch.setattr(source_limits, "MOST_FRAME_PIXELS", 5 * 24 * 16 - 1)
    with pytest.raises(ValueError, match=r"^moves\.webp has 5 frames of 24×16 pixels"):
        open_source(models["video"], file)


def test_a_sound_is_refused_by_the_length_that_its_header_claims(models, unread, tmp_path):
    file = tmp_path / "long.flac"
    soundfile.write(file, np.zeros((4800, 2), np.float32), 48_000)
    content = bytearray(file.read_bytes())
    minutes = 50 * 60 * 48_000
    assert int.from_bytes(content[22:26], "big") == 4800  # the samples of STREAMINFO, of 36 bits
    content[22:26] = minutes.to_bytes(4, "big")
    file.write_bytes(content)
    with pytest.raises(
        ValueError, match=r"^long\.flac is too long to be edited here: decoded it takes 1\.1 GiB, 0\.25 GiB at"
    ):
        open_source(models["audio"], file)


def test_a_clip_is_refused_by_the_length_that_its_header_claims(models, unread, tmp_path):
    file = tmp_path / "long.mp4"
    with av.open(str(file), "w") as container:
        stream = container.add_stream("h264", rate=8, options={"bf": "0"})
        stream.width, stream.height, stream.pix_fmt = 24, 16, "yuv420p"
        for second in (0, 1, 9000):
            frame = av.VideoFrame.from_ndarray(np.zeros((16, 24, 3), np.uint8))
            frame.pts = 8 * second
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    assert file.stat().st_size < 5000
    with pytest.raises(
        ValueError, match=r"^long\.mp4 is too long to be edited here: decoded it takes 0\.31 GiB, 0\.25 GiB"
    ):
        open_source(models["video"], file)


def test_what_cannot_be_told_before_is_refused_afterwards(models, tmp_path, monkeypatch):
    file = tmp_path / "tone.wav"
    soundfile.write(file, np.zeros(4000, np.float32), 8000)
    assert open_source(models["audio"], file).sample.numel() == 4000
    monkeypatch.setattr(source_limits, "MOST_VALUES", 3999)
    monkeypatch.setattr(type(models["audio"].modality), "count_values", lambda self, path: None)
    with pytest.raises(ValueError, match=r"^tone\.wav is too long to be edited here: decoded it takes 16 KiB"):
        open_source(models["audio"], file)

"""Odd EXIF, texts and profiles keep nobody from the pixels, and are never written anew."""

from __future__ import annotations

import io
import random
import struct
import subprocess
import sys
import tracemalloc
import zlib

import pytest
import torch
from PIL import Image

from modalities.image import ImageModality
from tests.modalities.image.test_formats import chunk

SHORT, ASCII, LONG, RATIONAL, SRATIONAL, FLOAT, DOUBLE = 3, 2, 4, 5, 10, 11, 12
ORIENTATION, MAKE, RESOLUTION, GPS = 0x0112, 0x010F, 0x011A, 0x8825
COLOUR = ImageModality(channels=3)


def exif(*entries, order="<"):
    """An EXIF block of these entries (tag, kind, count, four bytes of value or offset)."""
    head = b"II*\0" if order == "<" else b"MM\0*"
    block = head + struct.pack(order + "I", 8) + struct.pack(order + "H", len(entries))
    for tag, kind, count, value in entries:
        block += struct.pack(order + "HHI", tag, kind, count) + value
    return b"Exif\0\0" + block + bytes(4) + struct.pack("<ii", 1, 0) * 8


def turned(order="<", value=6):
    return (ORIENTATION, SHORT, 1, struct.pack(order + "HH", value, 0))


ODD = {
    "a float where text belongs": exif((MAKE, FLOAT, 1, struct.pack("<f", 1.5)), turned()),
    "a signed fraction with a zero below": exif(turned(), (RESOLUTION, SRATIONAL, 1, struct.pack("<I", 38))),
    "a fraction past the end": exif(turned(), (RESOLUTION, RATIONAL, 1, struct.pack("<I", 1 << 30))),
    "positions that are text": exif(turned(), (GPS, ASCII, 4, b"abc\0")),
    "a position past the end": exif(turned(), (GPS, LONG, 1, struct.pack("<I", 1 << 31))),
    "an unknown kind": exif((MAKE, 77, 3, bytes(4)), turned()),
    "a huge count": exif((MAKE, DOUBLE, (1 << 32) - 1, bytes(4)), turned()),
    "two orientations, of which the first counts": exif((ORIENTATION, SHORT, 2, struct.pack("<HH", 6, 3))),
    "big-endian": exif(turned(">"), order=">"),
}
NONE = {
    "an orientation of 0": exif(turned(value=0)),
    "an orientation of 77": exif(turned(value=77)),
    "an orientation that is text": exif((ORIENTATION, ASCII, 4, b"top\0")),
    "no byte order": b"Exif\0\0??*\0" + bytes(20),
    "cut short": exif(turned())[:13],
    "nothing": b"Exif\0\0",
}


def stripes():
    """A picture 48 wide and 32 high, white at its left end."""
    picture = Image.new("RGB", (48, 32))
    picture.paste((255, 255, 255), (0, 0, 8, 32))
    return picture


def jpeg_with(block):
    content = io.BytesIO()
    stripes().save(content, "JPEG", quality=95)
    segment = b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block
    return content.getvalue()[:2] + segment + content.getvalue()[2:]


def png_with(block):
    content = io.BytesIO()
    stripes().save(content, "PNG")
    return with_chunks(content.getvalue(), (b"eXIf", block.removeprefix(b"Exif\0\0")))


def with_chunks(content, *chunks, place=33):
    return content[:place] + b"".join(chunk(*each) for each in chunks) + content[place:]


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("write", [jpeg_with, png_with])
@pytest.mark.parametrize("name", ODD)
def test_a_picture_with_odd_exif_is_read_and_turned(write, name):
    sample = COLOUR.decode(write(ODD[name]), "a")
    assert sample.shape == (3, 48, 32)
    assert sample[:, :7].min() > 0.9, "the left end has come to the top"
    assert sample[:, 10:].max() < -0.9
    buckets = ImageModality(size=48, fit="crop", buckets=[[32, 48], [48, 32]])
    assert buckets.bucket(io.BytesIO(write(ODD[name]))) == 1


@pytest.mark.parametrize("write", [jpeg_with, png_with])
@pytest.mark.parametrize("name", NONE)
def test_a_picture_whose_orientation_cannot_be_read_stays_as_it_is(write, name):
    sample = COLOUR.decode(write(NONE[name]), "a")
    assert sample.shape == (3, 32, 48)
    assert sample[:, :, :7].min() > 0.9


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_no_mutated_exif_keeps_anybody_from_the_pixels():
    drawn = random.Random(0)
    blocks = [*ODD.values()]
    for _ in range(400):
        block = bytearray(drawn.choice(blocks))
        for _ in range(drawn.randint(1, 6)):
            block[drawn.randrange(6, len(block))] = drawn.choice((0, 1, 255, drawn.randrange(256)))
        sample = COLOUR.decode(jpeg_with(bytes(block)), "a")
        assert sorted(sample.shape) == [3, 32, 48]
        assert (sample > 0.9).float().mean().item() == pytest.approx(8 / 48, abs=0.02)


READ = """
import sys
from modalities.image import ImageModality
from modalities.video import VideoModality
pictures, frames = sys.argv[1:]
for name in ("a.jpg", "b.jpg"):
    ImageModality(channels=3).read(f"{pictures}/{name}")
VideoModality(num_frames=2, frame_rate=8, folder_rate=8).read(frames)
"""


def test_pillow_does_not_print_what_it_thinks_of_odd_exif(tmp_path):
    """Its warnings do not name the file."""
    for number, name in enumerate(("a huge count", "two orientations, of which the first counts")):
        (tmp_path / f"{'ab'[number]}.jpg").write_bytes(jpeg_with(ODD[name]))
    command = [sys.executable, "-c", READ, str(tmp_path), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_exif_that_pillow_cannot_open_at_all_is_left_out(monkeypatch):
    """Any error that Pillow's reader of metadata lets through."""
    from PIL import JpegImagePlugin

    def broken(picture):
        if "exif" in picture.info:
            raise RuntimeError("odd")

    monkeypatch.setattr(JpegImagePlugin.JpegImageFile, "_read_dpi_from_exif", broken)
    assert COLOUR.decode(jpeg_with(ODD["a huge count"]), "a").shape == (3, 32, 48)


BIG = zlib.compress(bytes(2_000_000), 9)
TEXTS = {
    "a compressed text": (b"zTXt", b"Comment\0\0" + BIG),
    "an international text": (b"iTXt", b"Comment\0\1\0\0\0" + BIG),
    "a colour profile": (b"iCCP", b"profile\0\0" + BIG),
    "a damaged text": (b"zTXt", b"Comment\0\0" + BIG[:40] + b"????" + BIG[44:]),
}


@pytest.mark.parametrize("where", ["before the pixels", "behind the pixels"])
@pytest.mark.parametrize("name", TEXTS)
def test_large_and_damaged_texts_do_not_refuse_a_picture(name, where):
    plain = io.BytesIO()
    stripes().save(plain, "PNG")
    place = 33 if where.startswith("before") else len(plain.getvalue()) - 12
    sample = COLOUR.decode(with_chunks(plain.getvalue(), TEXTS[name], place=place), "a.png")
    assert torch.equal(sample, COLOUR.decode(plain.getvalue(), "a.png"))


def test_many_texts_take_no_more_memory_than_their_packed_bytes():
    plain = io.BytesIO()
    stripes().save(plain, "PNG")
    texts = [(b"zTXt", b"Key%d\0\0" % number + zlib.compress(bytes(1_000_000), 9)) for number in range(100)]
    content = with_chunks(plain.getvalue(), *texts)
    tracemalloc.start()
    try:
        COLOUR.decode(content, "a.png")
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 80_000_000, "Pillow's own bound of texts, not the 100 MB that they unpack to"


def test_a_large_text_does_not_lift_the_limit_of_pixels():
    picture = io.BytesIO()
    Image.new("L", (600, 600)).save(picture, "PNG")
    content = with_chunks(picture.getvalue(), TEXTS["a compressed text"])
    with pytest.raises(ValueError, match=r"a\.png cannot be decoded as a picture: 600×600 exceeds 1000 pixels"):
        ImageModality(max_pixels=1000).decode(content, "a.png")


@pytest.mark.parametrize("error", [TypeError, AttributeError, RecursionError, MemoryError, struct.error, RuntimeError])
def test_whatever_a_decoder_raises_names_the_file(tmp_path, monkeypatch, error):
    def broken(self):
        raise error("deep inside\nof it")

    stripes().save(tmp_path / "a.png")
    monkeypatch.setattr(Image.Image, "tobytes", broken)
    with pytest.raises(ValueError, match=rf"a\.png cannot be decoded as a picture: {error.__name__}: deep inside of"):
        COLOUR.read(tmp_path / "a.png")


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_a_stop_is_no_error_of_a_file(tmp_path, monkeypatch, stop):
    def stopped(self):
        raise stop

    stripes().save(tmp_path / "a.png")
    monkeypatch.setattr(Image.Image, "tobytes", stopped)
    with pytest.raises(stop):
        COLOUR.read(tmp_path / "a.png")

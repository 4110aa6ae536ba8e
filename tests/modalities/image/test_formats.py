"""Each kind of picture file, byte by byte: what its pixels are once read."""

from __future__ import annotations

import io
import struct
import zlib

import pytest
import torch
from PIL import Image

from modalities.image import ImageModality
from modalities.pictures.reading import MAX_PIXELS


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, depth, kind, row, *extra):
    """A PNG of one row: its bit depth, colour type, bytes, and chunks before the pixels."""
    header = struct.pack(">IIBBBBB", width, 1, depth, kind, 0, 0, 0)
    chunks = [chunk(b"IHDR", header), *(chunk(*each) for each in extra), chunk(b"IDAT", zlib.compress(b"\0" + row))]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks) + chunk(b"IEND", b"")


def wide(*values):
    """8-bit values as 16-bit samples."""
    return struct.pack(f">{len(values)}H", *(257 * value for value in values))


def exactly(*values):
    """16-bit samples."""
    return struct.pack(f">{len(values)}H", *values)


KEY = (0x0A05, 0x1405, 0x1E05)
GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6
WHITE = (255, 255, 255)
HALF = (177, 177, 177)
"""Grey 100 of opacity 128/255 on white: 100 · 128/255 + 255 · 127/255."""
FILES = {
    "grey of 1 bit": (png(2, 1, GREY, b"\x80"), [WHITE, (0, 0, 0)]),
    "grey of 4 bits": (png(2, 4, GREY, b"\x8f"), [(136, 136, 136), WHITE]),
    "grey": (png(2, 8, GREY, bytes([100, 5])), [(100, 100, 100), (5, 5, 5)]),
    "grey, one value transparent": (
        png(2, 8, GREY, bytes([100, 5]), (b"tRNS", struct.pack(">H", 5))),
        [(100, 100, 100), WHITE],
    ),
    "grey of 1 bit, black transparent": (png(2, 1, GREY, b"\x80", (b"tRNS", b"\0\0")), [WHITE, WHITE]),
    "grey of 2 bits, one level transparent": (
        png(4, 2, GREY, b"\x1b", (b"tRNS", b"\0\2")),
        [(0, 0, 0), (85, 85, 85), WHITE, WHITE],
    ),
    "grey of 4 bits, one level transparent": (
        png(2, 4, GREY, b"\x38", (b"tRNS", b"\0\3")),
        [WHITE, (136, 136, 136)],
    ),
    "grey of 4 bits, a level of the 8-bit picture": (
        png(2, 4, GREY, b"\x01", (b"tRNS", b"\0\x11")),
        [(0, 0, 0), WHITE],
    ),
    "grey of 16 bits": (png(2, 16, GREY, wide(100, 255)), [(100, 100, 100), WHITE]),
    "grey of 16 bits, one value transparent": (
        png(2, 16, GREY, wide(100, 5), (b"tRNS", wide(5))),
        [(100, 100, 100), WHITE],
    ),
    "colour": (png(2, 8, RGB, bytes([10, 20, 30, 40, 50, 60])), [(10, 20, 30), (40, 50, 60)]),
    "colour, one value transparent": (
        png(2, 8, RGB, bytes([10, 20, 30, 40, 50, 60]), (b"tRNS", struct.pack(">3H", 40, 50, 60))),
        [(10, 20, 30), WHITE],
    ),
    "colour of 16 bits": (png(2, 16, RGB, wide(10, 20, 30, 40, 50, 60)), [(10, 20, 30), (40, 50, 60)]),
    "colour of 16 bits, one value transparent": (
        png(3, 16, RGB, exactly(0x0A05, 0x1405, 0x1E05, 0x0A06, 0x1405, 0x1E05, 5, 5, 5), (b"tRNS", exactly(*KEY))),
        [WHITE, (10, 20, 30), (0, 0, 0)],
    ),
    "palette of 2 bits": (
        png(4, 2, PALETTE, b"\x1b", (b"PLTE", bytes(range(12)))),
        [(0, 1, 2), (3, 4, 5), (6, 7, 8), (9, 10, 11)],
    ),
    "palette with transparency": (
        png(4, 2, PALETTE, b"\x1b", (b"PLTE", bytes(range(12))), (b"tRNS", b"\x00\xff")),
        [WHITE, (3, 4, 5), (6, 7, 8), (9, 10, 11)],
    ),
    "grey and alpha": (png(2, 8, GREY_ALPHA, bytes([100, 128, 7, 0])), [HALF, WHITE]),
    "grey and alpha of 16 bits": (png(2, 16, GREY_ALPHA, wide(100, 128, 7, 0)), [HALF, WHITE]),
    "colour and alpha": (png(2, 8, RGBA, bytes([100, 100, 100, 128, 1, 2, 3, 255])), [HALF, (1, 2, 3)]),
    "colour and alpha of 16 bits": (png(2, 16, RGBA, wide(100, 100, 100, 128, 1, 2, 3, 255)), [HALF, (1, 2, 3)]),
}


def read(tmp_path, content, suffix=".png", **options):
    (tmp_path / f"a{suffix}").write_bytes(content)
    sample = ImageModality(**{"background": 1.0, "channels": 3, **options}).read(tmp_path / f"a{suffix}")
    assert sample.dtype == torch.float32
    return (sample + 1) * 127.5


@pytest.mark.parametrize("kind", FILES)
def test_every_kind_of_png_has_its_pixels_on_white(tmp_path, kind):
    content, expected = FILES[kind]
    found = read(tmp_path, content)[:, 0].T
    assert torch.allclose(found, torch.tensor(expected, dtype=torch.float32), atol=0.51), found
    grey = read(tmp_path, content, channels=1)[0, 0]
    luminance = torch.tensor(expected, dtype=torch.float32) @ torch.tensor([0.299, 0.587, 0.114])
    assert torch.allclose(grey, luminance, atol=1.01), grey


def saved(mode, colour, kind, **options):
    content = io.BytesIO()
    Image.new(mode, (16, 16), colour).save(content, kind, **options)
    return content.getvalue()


@pytest.mark.parametrize(
    ("suffix", "content", "expected", "within"),
    [
        (".jpg", saved("RGB", (200, 100, 50), "JPEG", quality=95), (200, 100, 50), 2),
        (".jpeg", saved("L", 90, "JPEG", quality=95), (90, 90, 90), 1),
        (".jpg", saved("CMYK", (255, 0, 0, 0), "JPEG", quality=100), (0, 255, 255), 10),
        (".jpg", saved("CMYK", (0, 0, 0, 155), "JPEG", quality=100), (100, 100, 100), 3),
        (".webp", saved("RGB", (200, 100, 50), "WEBP", lossless=True), (200, 100, 50), 0.01),
        (".webp", saved("RGB", (200, 100, 50), "WEBP", quality=95), (200, 100, 50), 4),
        (".webp", saved("RGBA", (100, 100, 100, 128), "WEBP", lossless=True), HALF, 0.51),
    ],
)
def test_jpeg_and_webp_have_their_colours(tmp_path, suffix, content, expected, within):
    found = read(tmp_path, content, suffix)
    assert found.shape == (3, 16, 16)
    assert found[:, 8, 8].tolist() == pytest.approx(expected, abs=within)


def test_of_an_animation_the_first_frame_is_read(tmp_path):
    content = io.BytesIO()
    frames = [Image.new("RGB", (16, 16), colour) for colour in ((200, 100, 50), (0, 0, 255))]
    frames[0].save(content, "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    assert read(tmp_path, content.getvalue(), ".webp")[:, 8, 8].tolist() == pytest.approx([200, 100, 50], abs=0.01)


CORNERS = {1: (0, 0), 2: (0, 1), 3: (1, 1), 4: (1, 0), 5: (0, 0), 6: (0, 1), 7: (1, 1), 8: (1, 0)}
"""EXIF orientation to where the first pixel's corner (down, across) comes to stand (EXIF 2.3, tag 274)."""


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_every_orientation_stands_upright(tmp_path, orientation, kind):
    picture = Image.new("RGB", (48, 32), 0)
    picture.paste((255, 255, 255), (0, 0, 8, 8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = io.BytesIO()
    picture.save(content, kind, exif=exif, quality=100)
    suffix = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp"}[kind]
    found = read(tmp_path, content.getvalue(), suffix)
    height, width = (32, 48) if orientation < 5 else (48, 32)
    assert found.shape == (3, height, width)
    down, across = CORNERS[orientation]
    lit = found[0, 4 if down == 0 else height - 5, 4 if across == 0 else width - 5]
    assert lit > 240
    assert found[0].mean() < 255 * 80 / (48 * 32)
    buckets = [[32, 48], [48, 32]]
    by_header = ImageModality(size=48, fit="crop", buckets=buckets).bucket(io.BytesIO(content.getvalue()))
    assert by_header == (0 if orientation < 5 else 1)


def test_a_content_is_decoded_like_its_file_and_the_source_is_named(tmp_path):
    content, _ = FILES["colour"]
    assert torch.equal((ImageModality(channels=3).decode(content, "x") + 1) * 127.5, read(tmp_path, content))
    with pytest.raises(ValueError, match=r"a\.tar#b\.png cannot be decoded as a picture"):
        ImageModality().decode(content[:30], "a.tar#b.png")


@pytest.mark.parametrize("max_pixels", [0, MAX_PIXELS + 1])
def test_the_limit_of_bombs_is_a_key_within_pillows_own(max_pixels):
    with pytest.raises(ValueError, match=rf"modality\.max_pixels must lie in 1 … {MAX_PIXELS}"):
        ImageModality(max_pixels=max_pixels)


def test_a_bomb_is_refused_before_it_unfolds(tmp_path):
    """A whole PNG of 4096×4096 equal pixels packs into a few kilobytes."""
    rows = zlib.compress(b"\0" * (4096 * (4096 + 1)), 9)
    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 4096, 4096, 8, 0, 0, 0, 0))
    content += chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    assert len(content) < 20_000
    with pytest.raises(ValueError, match="4096×4096 exceeds 1000000 pixels"):
        read(tmp_path, content, max_pixels=1_000_000)


@pytest.mark.parametrize("by", ["bicubic", "lanczos", "box"])
@pytest.mark.parametrize("fit", ["resize", "crop", "pad"])
def test_no_filter_aliases(by, fit):
    stripes = torch.tensor([-1.0, 1.0]).repeat(50).expand(1, 100, 100).contiguous()
    shrunk = ImageModality(size=20, fit=fit, filter=by).transform(stripes)
    assert shrunk.shape == (1, 20, 20)
    assert shrunk[..., 3:-3].abs().max() < 0.3, "nearest neighbours would keep ±1"
    assert shrunk.mean().abs() < 0.02


def test_filters_are_what_they_say():
    ramp = torch.linspace(-1, 1, 16).reshape(1, 1, 16).expand(3, 16, 16).contiguous()
    boxed = ImageModality(size=4, channels=3, fit="resize", filter="box").transform(ramp)
    assert torch.allclose(boxed, ramp.reshape(3, 4, 4, 4, 4).mean((2, 4)), atol=1e-6), "means of 4×4 pixels"
    edge = torch.where(torch.arange(16) < 8, -0.5, 0.5).expand(1, 16, 16).contiguous()
    lanczos, bicubic, box = (
        ImageModality(size=8, fit="resize", filter=by).transform(edge) for by in ("lanczos", "bicubic", "box")
    )
    assert lanczos.max() > bicubic.max() > box.max() == 0.5, "the sharper, the more it overshoots"


def test_grey_data_for_a_colour_recipe_are_named():
    grey, coloured = (
        torch.linspace(-1, 1, 4).expand(3, 4, 4),
        torch.tensor([0.0, 0.1, 0.2]).reshape(3, 1, 1).expand(3, 4, 4),
    )
    colour = ImageModality(channels=3)
    (remark,) = colour.data_warnings([grey, grey])
    assert "all 2 pictures that were looked at are grey" in remark
    assert "modality.channels=1" in remark
    assert colour.data_warnings([grey, coloured]) == []
    assert ImageModality(channels=1).data_warnings([grey[:1]]) == []

"""Damaged JPEG files are refused, whole ones are never, and an end marker alone may be missing."""

from __future__ import annotations

import contextlib
import io
import itertools

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from modalities.image import ImageModality
from modalities.pictures import jpeg

CODINGS = [
    {"progressive": progressive, **how}
    for progressive in (False, True)
    for how in (
        {"subsampling": 0},
        {"subsampling": 2},
        {"subsampling": 2, "optimize": True},
        {"restart_marker_rows": 1},
        {"restart_marker_blocks": 3},
    )
]


def photograph(mode):
    """A picture with detail everywhere, so that no part of its data could be zeros."""
    down, across = np.mgrid[:88, :104]
    waves = np.stack([128 + 90 * np.sin(across / 17 + c) + 20 * np.cos(down / (5 + c)) for c in range(3)], -1)
    noise = np.random.default_rng(0).normal(0, 12, waves.shape)
    return Image.fromarray((waves + noise).clip(0, 255).astype(np.uint8)).convert(mode)


def coded(picture, **options):
    content = io.BytesIO()
    picture.save(content, "JPEG", **options)
    return content.getvalue()


def colour():
    return ImageModality(channels=3)


def as_decoded(content):
    with Image.open(io.BytesIO(content)) as picture:
        return torch.from_numpy(np.asarray(picture.convert("RGB")).copy()).permute(2, 0, 1) / 127.5 - 1


def scan_start(content):
    return content.index(b"\xff\xda") + 20


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("coding", CODINGS, ids=str)
def test_a_missing_end_marker_alone_does_not_matter(mode, coding):
    content = coded(photograph(mode), quality=80, **coding)
    whole = colour().decode(content, "a.jpg")
    assert torch.allclose(whole, as_decoded(content), atol=1e-6)
    for missing in (1, 2):
        assert torch.equal(colour().decode(content[:-missing], "a.jpg"), whole)


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("coding", CODINGS, ids=str)
@pytest.mark.parametrize("fraction", [0.0, 0.3, 0.5, 0.9])
def test_zeros_or_nothing_in_place_of_the_rest_are_damage(mode, coding, fraction):
    content = coded(photograph(mode), quality=80, **coding)
    place = scan_start(content) + int(fraction * (len(content) - scan_start(content)))
    missing = len(content) - place
    damaged = {
        "zeros": content[:place] + bytes(missing),
        "zeros and an end marker": content[:place] + bytes(missing - 2) + jpeg.END,
        "cut": content[:place],
        "cut, with an end marker": content[:place] + jpeg.END,
    }
    for kind, bad in damaged.items():
        with pytest.raises(ValueError, match=r"a\.jpg cannot be decoded as a picture: it is (damaged|cut short)"):
            validate(bad)
        if not (coding["progressive"] and "cut," in kind):
            with pytest.raises(ValueError, match=r"a\.jpg cannot be decoded as a picture: it is (damaged|cut short)"):
                colour().decode(bad, "a.jpg")


def validate(content):
    file = io.BytesIO(content)
    file.name = "a.jpg"
    colour().validate(file)


@pytest.mark.parametrize("quality", [10, 50, 95])
def test_a_hole_of_zeros_in_the_middle_is_damage(quality):
    content = coded(photograph("RGB"), quality=quality)
    for fraction in (0.2, 0.5, 0.8):
        place = int(fraction * len(content))
        place = max(place, scan_start(content))
        bad = content[:place] + bytes(100) + content[place + 100 :]
        if len(bad) > len(content):
            continue
        with pytest.raises(ValueError, match="zeros stand in place of a part of its pixels"):
            colour().decode(bad, "a.jpg")


@pytest.mark.parametrize("coding", CODINGS, ids=str)
def test_a_file_that_lacks_its_last_bytes_is_refused_or_lacks_no_pixel(coding):
    content = coded(photograph("RGB"), quality=80, **coding)
    whole = colour().decode(content, "a.jpg")
    for num in range(3, 13):
        with contextlib.suppress(ValueError):
            assert torch.equal(colour().decode(content[:-num], "a.jpg"), whole)
    with pytest.raises(ValueError, match="cut short"):
        colour().decode(content[:-12], "a.jpg")


def synthetic():
    """Pictures whose data can be zeros for long."""
    for level in (0, 127, 128, 255):
        yield Image.new("L", (264, 264), level)
    yield Image.new("RGB", (264, 264), (128, 128, 128))
    yield Image.new("RGB", (264, 264), (250, 3, 90))
    yield Image.new("CMYK", (264, 264), (0, 0, 0, 255))
    page = Image.new("L", (400, 400), 255)
    ImageDraw.Draw(page).text((50, 50), "a page", fill=0)
    yield page
    yield Image.fromarray(np.tile(np.array([[0, 255], [255, 0]], np.uint8), (132, 132)))
    yield Image.fromarray(np.tile(np.arange(8, dtype=np.uint8) * 30, (264, 33)))


@pytest.mark.parametrize("quality", [1, 60, 99, 100])
@pytest.mark.parametrize("progressive", [False, True])
def test_flat_and_repeated_pictures_are_never_refused(quality, progressive):
    ways = ({"optimize": False}, {"optimize": True}, {"restart_marker_rows": 2})
    for picture, way in itertools.product(synthetic(), ways):
        content = coded(picture, quality=quality, progressive=progressive, **way)
        validate(content)
        validate(content[:-2])


def test_flat_data_cut_or_followed_by_zeros_are_damage():
    """Flat pictures with optimised tables are coded as zeros, so that their number tells."""
    picture = photograph("L").resize((400, 400))
    picture.paste(200, (0, 100, 400, 400))
    content = coded(picture, quality=60, optimize=True)
    assert content.find(bytes(100)) > 0
    validate(content)
    bad = content[: content.index(bytes(100))]
    with pytest.raises(ValueError, match="cut short"):
        validate(bad)
    with pytest.raises(ValueError, match="zeros stand"):
        validate(bad + bytes(5000))


def test_zeros_outside_of_the_pixels_are_no_damage():
    segment = b"\xff\xe5" + (5000).to_bytes(2, "big") + bytes(4998)
    content = coded(photograph("RGB"), quality=80)
    whole = colour().decode(content, "a.jpg")
    for good in (content[:2] + segment + content[2:], content + bytes(4096)):
        assert torch.equal(colour().decode(good, "a.jpg"), whole)

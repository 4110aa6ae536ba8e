"""Pictures of every mode and format that Pillow writes, against Pillow's own decoding of them."""

from __future__ import annotations

import io
import itertools

import numpy as np
import pytest
import torch
from PIL import Image

from modalities.image import ImageModality

LEVEL = 2 / 255
"""One of 255 levels in [-1, 1]: Pillow rounds to whole ones where it makes grey of colours, or mixes the background."""
GROUND = 0.2
"""The background, grey 153."""


def photograph():
    down, across = np.mgrid[:37, :53]
    waves = np.stack([128 + 110 * np.sin(across / (7 + c) + down / (9 - c)) for c in range(3)], -1)
    return Image.fromarray(waves.clip(0, 255).astype(np.uint8))


def ramp(mode):
    """The photograph in a mode, with every opacity from 0 to 255 where the mode has one."""
    picture = photograph()
    if mode in ("RGBA", "LA"):
        opacity = Image.fromarray(np.linspace(0, 255, 37 * 53).astype(np.uint8).reshape(37, 53))
        picture = picture.convert(mode)
        picture.putalpha(opacity)
        return picture
    if mode == "I;16":
        return Image.fromarray(np.linspace(0, 65535, 37 * 53).astype(np.uint16).reshape(37, 53))
    if mode == "P":
        return picture.quantize(200)
    return picture.convert(mode)


def expected(content, channels):
    """The pixels in [-1, 1] as Pillow decodes them, composed on the background in floating point."""
    with Image.open(io.BytesIO(content)) as picture:
        if picture.mode.startswith("I"):
            values = np.asarray(picture).astype(np.float64)[..., None].repeat(3, -1) / 65535
        else:
            values = np.asarray(picture.convert("RGBA")).astype(np.float64) / 255
            opacity = values[..., 3:]
            values = values[..., :3] * opacity + (GROUND + 1) / 2 * (1 - opacity)
    if channels == 1:
        values = (values @ np.array([0.299, 0.587, 0.114]))[..., None]
    return torch.from_numpy(values.transpose(2, 0, 1) * 2 - 1).float()


def saved(picture, kind, **options):
    content = io.BytesIO()
    picture.save(content, kind, **options)
    return content.getvalue()


def pngs():
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"):
        yield f"PNG {mode}", saved(ramp(mode), "PNG")
    for bits in (1, 2, 4):
        yield f"PNG P of {bits} bits", saved(photograph().quantize(1 << bits), "PNG", bits=bits)
        yield f"PNG L of {bits} bits", saved(photograph().convert("L").quantize(1 << bits), "PNG", bits=bits)
    few = photograph().quantize(40)
    yield "PNG P, one entry transparent", saved(few, "PNG", transparency=3)
    yield "PNG P, an opacity for each entry", saved(few, "PNG", transparency=bytes(range(0, 240, 6)))
    yield "PNG L, one level transparent", saved(ramp("L"), "PNG", transparency=40)
    red, green, blue = photograph().getpixel((5, 5))
    yield "PNG RGB, one colour transparent", saved(photograph(), "PNG", transparency=(red, green, blue))


def jpegs():
    for mode in ("L", "RGB", "CMYK", "YCbCr"):
        for progressive, subsampling, quality in itertools.product((False, True), (0, 1, 2), (30, 95)):
            how = {"progressive": progressive, "subsampling": subsampling, "quality": quality}
            yield f"JPEG {mode} {how}", saved(photograph().convert(mode), "JPEG", **how)
    yield "JPEG of RGB components", saved(photograph(), "JPEG", keep_rgb=True)
    yield "JPEG YCCK", ycck()
    yield "JPEG with restart markers", saved(photograph(), "JPEG", restart_marker_rows=1)


def ycck():
    """A CMYK file whose first three components are YCbCr by its Adobe segment."""
    content = saved(photograph().convert("CMYK"), "JPEG", quality=95)
    place = content.index(b"Adobe") + 11
    assert content[place] in (0, 2)
    return content[:place] + bytes([2]) + content[place + 1 :]


def webps():
    for lossless, mode in itertools.product((False, True), ("L", "RGB", "RGBA")):
        yield f"WebP {mode} lossless={lossless}", saved(ramp(mode), "WEBP", lossless=lossless, exact=True)
    frames = [photograph(), photograph().transpose(Image.Transpose.FLIP_LEFT_RIGHT)]
    yield "WebP animated", saved(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)


FILES = dict(itertools.chain(pngs(), jpegs(), webps()))


@pytest.mark.parametrize("name", FILES)
def test_pixels_are_those_that_pillow_decodes(name):
    content = FILES[name]
    for channels in (1, 3):
        found = ImageModality(channels=channels, background=GROUND).decode(content, name)
        worst = (found - expected(content, channels)).abs().max().item()
        exact = "I;16" in name or not ("A" in name.split()[1] or channels == 1 or "opacity" in name)
        assert worst <= (1e-6 if exact else LEVEL + 1e-6), worst


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(9))
def test_every_orientation_of_pillows_is_turned_as_pillow_turns_it(kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = saved(photograph(), kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {}))
    with Image.open(io.BytesIO(content)) as picture:
        method = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}.get(orientation)
        turned = picture if method is None else picture.transpose(Image.Transpose(method))
        pixels = torch.from_numpy(np.asarray(turned).copy()).permute(2, 0, 1) / 127.5 - 1
    assert torch.allclose(ImageModality(channels=3).decode(content, "a"), pixels, atol=1e-6)

"""Pictures: every kind of file read, brought to shape, written with what is known of them, shown."""

from __future__ import annotations

import struct
import zlib

import pytest
import torch
from PIL import Image

from modalities.image import ImageModality, read_metadata
from scm_media.testing import check_modality


def levels(sample):
    """The sample in the units of 8-bit files."""
    return (sample + 1) * 127.5


def from_bytes(pixels):
    return pixels.float() / 127.5 - 1


@pytest.fixture
def pixels(generator):
    return torch.randint(256, (3, 9, 7), generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_contract_is_kept(tmp_path, generator, channels):
    modality = ImageModality(size=16, channels=channels, fit="crop", random_crop=True, flip=True)
    check_modality(modality, tmp_path, torch.rand(channels, 20, 31, generator=generator) * 2 - 1)


@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_survive_a_file_exactly(tmp_path, pixels, channels):
    modality = ImageModality(channels=channels)
    sample = from_bytes(pixels[:channels])
    modality.write(tmp_path / "a.png", sample, {})
    assert torch.equal(modality.read(tmp_path / "a.png"), sample)


def test_writing_rounds_and_clips(tmp_path):
    modality = ImageModality()
    modality.write(tmp_path / "a.png", torch.tensor([[[-1.5, 1.5, 0.002, -0.002]]]), {})
    assert levels(modality.read(tmp_path / "a.png")).round().tolist() == [[[0, 255, 128, 127]]]


METADATA = {
    "recipe": "image/fashion",
    "model": "modèle № 3",
    "seed": 7,
    "times": [1.5646, 1.1],
    "label": {"class": "T-shirt/top", "pitch": None},
    "prompt": "12",
    "flag": "true",
    "quoted": '"red"',
    "lines": "one\ntwo",
    "guidance": 1.5,
    "teacher": False,
    "zero": "a\0b",
    "empty": "",
}


def test_metadata_come_back_as_they_were_given(tmp_path):
    ImageModality().write(tmp_path / "a.png", torch.zeros(1, 4, 4), METADATA)
    assert read_metadata(tmp_path / "a.png") == METADATA
    with Image.open(tmp_path / "a.png") as picture:
        picture.load()
        assert picture.text["scm_media:recipe"] == "image/fashion"
        assert picture.text["scm_media:seed"] == "7"
    Image.new("L", (2, 2)).save(tmp_path / "b.png")
    assert read_metadata(tmp_path / "b.png") == {}


def test_what_cannot_be_written_leaves_nothing(tmp_path):
    modality = ImageModality()
    with pytest.raises(ValueError, match=r"\.png"):
        modality.write(tmp_path / "a.gif", torch.zeros(1, 4, 4), {})
    with pytest.raises(ValueError, match="not finite"):
        modality.write(tmp_path / "a.png", torch.full((1, 4, 4), torch.nan), {})
    with pytest.raises(ValueError, match=r"\(2, 4, 4\)"):
        modality.write(tmp_path / "a.png", torch.zeros(2, 4, 4), {})
    with pytest.raises(OSError, match="missing"):
        modality.write(tmp_path / "missing" / "a.png", torch.zeros(1, 4, 4), {})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("suffix", "options"), [(".png", {}), (".webp", {"lossless": True}), (".jpg", {"quality": 95})]
)
def test_formats_are_read(tmp_path, suffix, options):
    path = tmp_path / f"a{suffix}"
    Image.new("RGB", (10, 6), (200, 100, 50)).save(path, **options)
    sample = ImageModality(channels=3).read(path)
    assert sample.shape == (3, 6, 10)
    assert torch.allclose(levels(sample)[:, 3, 5], torch.tensor([200.0, 100.0, 50.0]), atol=2)
    grey = ImageModality(channels=1).read(path)
    assert levels(grey)[0, 3, 5].item() == pytest.approx(0.299 * 200 + 0.587 * 100 + 0.114 * 50, abs=2)


def test_modes_are_brought_to_the_channels(tmp_path):
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, 10, 20, 30])
    palette.save(tmp_path / "palette.png")
    Image.new("1", (4, 4), 1).save(tmp_path / "bit.png")
    Image.new("CMYK", (4, 4), (255, 0, 0, 0)).save(tmp_path / "cmyk.jpg", quality=100)
    sixteen = torch.tensor([[0, 257 * 100], [257 * 200, 65535]], dtype=torch.int32).to(torch.uint16).numpy()
    Image.fromarray(sixteen).save(tmp_path / "sixteen.png")
    colour, grey = ImageModality(channels=3), ImageModality(channels=1)
    assert levels(colour.read(tmp_path / "palette.png"))[:, 0, 0].tolist() == pytest.approx([10, 20, 30], abs=0.01)
    assert levels(grey.read(tmp_path / "bit.png")).unique().tolist() == [255]
    cyan = levels(colour.read(tmp_path / "cmyk.jpg"))[:, 2, 2]
    assert cyan[0] < 10
    assert cyan[1:].min() > 245
    assert levels(grey.read(tmp_path / "cmyk.jpg"))[0, 2, 2].item() == pytest.approx(178, abs=5)
    for modality in (colour, grey):
        found = levels(modality.read(tmp_path / "sixteen.png"))
        assert found.shape[0] == modality.channels
        assert found[0].flatten().tolist() == pytest.approx([0, 100, 200, 255], abs=0.01)


@pytest.mark.parametrize(("background", "expected"), [(-1.0, 100), (1.0, 227)])
def test_transparency_shows_the_background(tmp_path, background, expected):
    Image.new("RGBA", (4, 4), (200, 200, 200, 128)).save(tmp_path / "rgba.png")
    Image.new("LA", (4, 4), (200, 128)).save(tmp_path / "la.png")
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, 200, 200, 200])
    palette.save(tmp_path / "p.png", transparency=b"\xff\x80")
    for name in ("rgba.png", "la.png", "p.png"):
        for channels in (1, 3):
            sample = ImageModality(channels=channels, background=background).read(tmp_path / name)
            assert levels(sample).min().item() == pytest.approx(expected, abs=1.5), name


def test_pictures_stand_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = Image.new("L", (6, 4), 0)
    picture.putpixel((0, 0), 255)
    picture.save(tmp_path / "a.png", exif=exif)
    sample = ImageModality().read(tmp_path / "a.png")
    assert sample.shape == (1, 6, 4)
    assert sample[0].argmax().item() == 3, "turned clockwise, the first pixel comes to the upper right"


def bomb(side):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)) + chunk(b"IDAT", b"")
    )


@pytest.mark.parametrize("side", [9_000, 100_000])
def test_bombs_are_refused_before_they_unfold(tmp_path, side):
    (tmp_path / "bomb.png").write_bytes(bomb(side))
    with pytest.raises(ValueError, match=r"bomb\.png.*pixels"):
        ImageModality().read(tmp_path / "bomb.png")
    Image.new("L", (20, 20)).save(tmp_path / "small.png")
    with pytest.raises(ValueError, match="20×20 exceeds 399 pixels"):
        ImageModality(max_pixels=399).read(tmp_path / "small.png")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_torn_and_missing_files_are_named(tmp_path, generator, suffix):
    noise = torch.randint(256, (40, 40), generator=generator, dtype=torch.uint8).numpy()
    Image.fromarray(noise).save(tmp_path / f"whole{suffix}")
    whole = (tmp_path / f"whole{suffix}").read_bytes()
    torn = tmp_path / f"torn{suffix}"
    for content in (b"", b"no picture", whole[: len(whole) // 2], whole[:20]):
        torn.write_bytes(content)
        with pytest.raises(ValueError, match=f"{torn} cannot be decoded"):
            ImageModality().read(torn)
    with pytest.raises(ValueError, match=r"missing\.png: no such file"):
        ImageModality().read(tmp_path / "missing.png")
    with pytest.raises(ValueError, match="no such file"):
        ImageModality().read(tmp_path)


def test_pad_puts_black_all_round_and_changes_nothing_inside(pixels):
    sample = from_bytes(pixels[:1])
    padded = ImageModality(size=12, fit="pad").transform(sample)
    assert torch.equal(padded[:, 1:10, 2:9], sample)
    assert padded.sum().item() == pytest.approx(sample.sum().item() - (144 - 63), abs=1e-4)
    white = ImageModality(size=12, fit="pad", background=1.0).transform(sample)
    assert white.sum().item() == pytest.approx(sample.sum().item() + (144 - 63), abs=1e-4)


def test_pad_shrinks_what_is_too_large_and_keeps_its_form():
    padded = ImageModality(size=16, fit="pad").transform(torch.ones(1, 64, 32))
    assert torch.allclose(padded[0, :, 4:12], torch.ones(16, 8))
    assert torch.equal(padded[0, :, :4], -torch.ones(16, 4))
    assert padded.mean().item() == pytest.approx(0, abs=1e-6)


def test_crop_takes_the_middle_of_the_shorter_side():
    ramp = torch.linspace(-1, 1, 64).expand(1, 16, 64)
    cropped = ImageModality(size=16, fit="crop").transform(ramp)
    assert torch.equal(cropped, ramp[..., 24:40])
    enlarged = ImageModality(size=32, fit="crop").transform(ramp)
    assert enlarged.shape == (1, 32, 32)
    assert enlarged[0, 0, 0].item() == pytest.approx(-0.25, abs=0.02)


def test_resizing_has_no_aliases():
    stripes = torch.tensor([-1.0, 1.0]).repeat(32).expand(1, 64, 64).contiguous()
    for fit in ("resize", "crop", "pad"):
        shrunk = ImageModality(size=16, fit=fit).transform(stripes)
        assert shrunk[..., 2:-2].abs().max() < 0.02, "stripes finer than a pixel must become grey"
    assert ImageModality(size=16, fit="resize").transform(torch.ones(1, 64, 20)).shape == (1, 16, 16)


def test_random_crop_and_flip_come_from_the_generator_alone():
    modality = ImageModality(size=8, channels=1, fit="crop", random_crop=True, flip=True)
    ramp = torch.linspace(-1, 1, 24).expand(1, 8, 24)
    found = [modality.transform(ramp, torch.Generator().manual_seed(seed)) for seed in range(400)]
    rising = torch.tensor([bool(sample[0, 0, 1] > sample[0, 0, 0]) for sample in found])
    assert 0.4 < rising.float().mean() < 0.6
    starts = {round((float(sample[0, 0].min()) + 1) * 11.5) for sample in found}
    assert starts == set(range(17)), "every place of the cut must occur"
    again = modality.transform_batch(
        ramp.expand(400, 1, 8, 24), [torch.Generator().manual_seed(seed) for seed in range(400)]
    )
    assert torch.equal(torch.stack(found), again)
    assert torch.equal(modality.transform(ramp), ramp[..., 8:16])


def test_channels_are_converted():
    grey = torch.linspace(-1, 1, 16).reshape(1, 4, 4)
    assert torch.equal(ImageModality(size=4, channels=3).transform(grey), grey.expand(3, 4, 4))
    back = ImageModality(size=4, channels=1).transform(grey.expand(3, 4, 4))
    assert torch.allclose(back, grey, atol=1e-6)
    with pytest.raises(ValueError, match="got 2"):
        ImageModality(size=4).transform(torch.zeros(2, 4, 4))


def test_shape_follows_size():
    modality = ImageModality(size=32, channels=3)
    assert modality.shape() == (3, 32, 32)
    assert modality.shape(size=48) == (3, 48, 48)
    assert modality.size_options["size"].default == 32
    with pytest.raises(ValueError, match="duration; they have: size"):
        modality.shape(duration=2)
    with pytest.raises(ValueError, match="whole number"):
        modality.shape(size=0.5)


def test_previews_enlarge_pixel_by_pixel(pixels):
    samples = from_bytes(pixels[:, None, :, :7]).repeat(2, 1, 1, 1)[:5]
    modality = ImageModality()
    sheet = torch.tensor(list(modality.preview(samples, columns=3).convert("L").tobytes()), dtype=torch.uint8)
    page = modality.preview(samples, columns=3)
    sheet = sheet.reshape(page.height, page.width)
    factor = 14  # the least that makes 7 pixels 96
    assert page.size == (3 * (7 * factor + 8) + 8, 2 * (9 * factor + 8) + 8)
    left, top = 8 + 7 * factor + 8, 8 + 9 * factor + 8
    fifth = sheet[top : top + 9 * factor, left : left + 7 * factor]
    assert torch.equal(fifth[::factor, ::factor], pixels[1])
    assert torch.equal(fifth[factor - 1 :: factor, factor - 1 :: factor], pixels[1])


def test_captions_stand_below_in_as_many_lines_as_they_need():
    modality = ImageModality(channels=3)
    samples = torch.zeros(4, 3, 32, 32)
    plain = modality.preview(samples)
    short = modality.preview(samples, ["Bag"] * 4)
    long = modality.preview(samples, ["Bag", "a long caption that needs three lines or so", "x" * 80, ""])
    assert plain.size[0] == short.size[0] == long.size[0] == 2 * 104 + 8
    assert plain.size[1] < short.size[1] < long.size[1]
    below = short.crop((8, 8 + 96, 104, 8 + 96 + 17)).convert("L").getextrema()
    assert below[0] < 80, "dark letters on white"
    assert below[1] == 255


def test_sheets_that_cannot_be_are_refused():
    modality = ImageModality()
    for samples, captions, columns in (
        (torch.zeros(0, 1, 4, 4), (), None),
        (torch.zeros(2, 1, 4, 4), ["one"], None),
        (torch.zeros(2, 1, 4, 4), (), 0),
    ):
        with pytest.raises(ValueError, match=r"at least 1 sample|1 captions for 2 samples|columns of a sheet"):
            modality.preview(samples, captions, columns)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"size": 0}, "size"),
        ({"channels": 2}, r"channels must be 1 \(grey\) or 3"),
        ({"fit": "stretch"}, "pad, crop, resize"),
        ({"random_crop": True}, "fit=crop"),
        ({"background": 200.0}, r"\[-1, 1\]"),
    ],
)
def test_impossible_options_are_refused_by_key(options, said):
    with pytest.raises(ValueError, match=said):
        ImageModality(**options)

"""Images and frames of videos are read by one implementation: the same pixels, and the same files refused."""

from __future__ import annotations

import io
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from modalities.image import ImageModality
from modalities.pictures.pixels import covering_size, draw_corner, resize
from modalities.video import VideoModality
from tests.modalities.video.test_stills import png

BACKGROUND = 0.25
WIDTH, HEIGHT = 72, 56


def smooth(channels: int) -> np.ndarray:
    """Pixels ``(H, W, C)`` with detail everywhere."""
    coarse = np.random.default_rng(0).integers(0, 256, (HEIGHT // 8, WIDTH // 8, channels)).astype(np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC))


def coded(kind: str, channels: int = 3, **options) -> bytes:
    content = io.BytesIO()
    picture = Image.fromarray(smooth(channels))
    picture.convert(options.pop("mode", picture.mode)).save(content, kind, **options)
    return content.getvalue()


def close_colours() -> bytes:
    """A PNG of 16 bits a channel, of which one colour is transparent and another has the same upper bytes."""
    key, near = (2570, 5140, 7710), (2571, 5140, 7710)
    return png(np.array([[key, near] * 4] * 8), 16, key)


def cut_jpeg() -> bytes:
    return coded("JPEG", quality=90)[:-3]


def jpeg_with_hole() -> bytes:
    """A JPEG with zeros in place of data between two restart markers in its middle."""
    content = bytearray(coded("JPEG", quality=95, restart_marker_rows=1))
    start, stop = content.index(b"\xff\xd1") + 2, content.index(b"\xff\xd2")
    assert stop - start > 100
    content[start + 10 : stop - 10] = bytes(stop - start - 20)
    return bytes(content)


WHOLE = {
    "a.png": lambda: coded("PNG"),
    "palette.png": lambda: coded("PNG", mode="P"),
    "alpha.png": lambda: coded("PNG", 4),
    "close.png": close_colours,
    "a.jpg": lambda: coded("JPEG"),
    "cmyk.jpg": lambda: coded("JPEG", mode="CMYK"),
    "progressive.jpg": lambda: coded("JPEG", progressive=True),
    "no-end.jpg": lambda: coded("JPEG")[:-2],
}
DAMAGED = {
    "cut.jpg": cut_jpeg,
    "hole.jpg": jpeg_with_hole,
    "cut.png": lambda: coded("PNG")[:-2000],
    "text.png": lambda: b"no such thing" * 9,
}


def read_both(path, channels=3):
    image = ImageModality(channels=channels, background=BACKGROUND).read(path)
    clip = VideoModality(num_frames=1, channels=channels, background=BACKGROUND).read(path)
    return image, clip[:, 0]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", WHOLE)
def test_a_picture_and_a_frame_have_the_same_pixels(tmp_path, name, channels):
    (tmp_path / name).write_bytes(WHOLE[name]())
    image, frame = read_both(tmp_path / name, channels)
    assert torch.equal(image, frame)
    assert image.std() > 0.01


def test_of_two_colours_that_differ_in_their_lower_bytes_one_is_transparent(tmp_path):
    (tmp_path / "a.png").write_bytes(close_colours())
    for pixels in read_both(tmp_path / "a.png"):
        assert (pixels[:, :, ::2] - BACKGROUND).abs().max() < 0.01
        assert (pixels[:, 3, 1] - torch.tensor([10, 20, 30]) / 127.5 + 1).abs().max() < 0.01


@pytest.mark.parametrize("name", DAMAGED)
def test_what_is_damaged_is_no_picture_and_no_frame(tmp_path, name):
    (tmp_path / name).write_bytes(DAMAGED[name]())
    for modality in (ImageModality(channels=3), VideoModality(num_frames=1)):
        with pytest.raises(ValueError, match=r"cannot be decoded"):
            modality.read(tmp_path / name)


def test_a_check_of_frames_finds_missing_details_of_progressive_jpeg_files(tmp_path):
    content = coded("JPEG", progressive=True, quality=95)
    last = content.rindex(b"\xff\xda")
    folder = tmp_path / "frames"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.jpg").write_bytes(content)
    modality = VideoModality(num_frames=2, size=16)
    modality.validate(folder)
    (folder / "1.jpg").write_bytes(content[: last + 40] + b"\xff\xd9")
    with pytest.raises(ValueError, match=r"1\.jpg: it is cut short"):
        modality.validate(folder)


@pytest.mark.parametrize("size", [(20, 31), (56, 40), (90, 130)])
@pytest.mark.parametrize("name", ["bicubic", "lanczos", "box"])
def test_resampling_is_pillows_to_rounding(name, size):
    samples = torch.from_numpy(smooth(3).copy()).permute(2, 0, 1)[None] / 127.5 - 1
    found = resize(samples, *size, by=name)
    method = Image.Resampling[name.upper()]
    planes = [np.asarray(Image.fromarray(plane).resize(size[::-1], method)) for plane in samples[0].numpy()]
    assert (found[0] - torch.from_numpy(np.stack(planes)).clamp(-1, 1)).abs().max() < 1e-5


def test_without_torchvision_the_remedy_is_said_and_nothing_else_needs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision.transforms", None)
    samples = torch.zeros(1, 3, 8, 8)
    assert resize(samples, 8, 8) is samples
    assert resize(samples, 4, 4, by="box").shape[-1] == 4
    with pytest.raises(ValueError, match=r"torchvision.*pip install 'scm-media\[image\]'"):
        resize(samples, 4, 4)


def test_a_crop_covers_its_size_and_lies_within_the_picture():
    assert covering_size(100, 50, (20, 20)) == (40, 20)
    assert covering_size(50, 100, (20, 30)) == (20, 40)
    assert draw_corner((41, 20), (20, 20)) == (10, 0)
    corners = {draw_corner((22, 21), (20, 20), torch.Generator().manual_seed(seed)) for seed in range(60)}
    assert corners == {(top, left) for top in range(3) for left in range(2)}

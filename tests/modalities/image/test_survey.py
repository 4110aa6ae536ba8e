"""What is suggested for pictures of others, and what they are warned of: transparent ones, and those of one colour."""

from __future__ import annotations

import pytest
import torch
from PIL import Image, ImageDraw

from modalities.image import ImageModality


def draw(path, colour: str, background: str | None, size: tuple[int, int] = (100, 140)):
    """Writes a disc on a background, which is transparent where it has no colour."""
    picture = Image.new("RGBA", size, background or (0, 0, 0, 0))
    ImageDraw.Draw(picture).ellipse((10, 10, 90, 90), fill=colour)
    picture.save(path)
    return path


@pytest.mark.parametrize(
    ("colours", "background", "keys"),
    [
        (["black", "navy", "black"], None, {"fit": "pad", "background": 1.0}),
        (["white", "white", "black"], None, {"fit": "pad"}),
        (["red", "green", "blue"], None, {"fit": "pad", "background": 1.0}),
        (["black", "navy", "black"], "grey", {"fit": "crop"}),
    ],
)
def test_transparent_pictures_get_a_background_on_which_they_are_seen(tmp_path, colours, background, keys):
    files = [draw(tmp_path / f"{number}.png", each, background) for number, each in enumerate(colours)]
    found, seen = ImageModality.suggest_config(files)
    assert {key: found[key] for key in ("fit", "background") if key in found} == keys
    assert ("3 are partly transparent" in seen) == (background is None)
    assert ("shown on white" in seen) == ("background" in keys)
    modality = ImageModality(**found)
    assert all(modality.read(file).std() > 0.1 for file in files[:2])
    assert modality.data_warnings([modality.read(file) for file in files[:2]]) == []


def test_one_transparent_picture_in_four_crops_as_before(tmp_path):
    files = [draw(tmp_path / f"{number}.png", "red", "grey" if number else None) for number in range(4)]
    found, seen = ImageModality.suggest_config(files)
    assert found["fit"] == "crop" and found["background"] == 1.0 and "1 are partly transparent" in seen


def test_pictures_that_vanish_are_warned_of(tmp_path):
    modality = ImageModality(size=32)
    lost = modality.read(draw(tmp_path / "1.png", "black", None))
    kept = modality.read(draw(tmp_path / "2.png", "red", None))
    (warning,) = modality.data_warnings([lost, kept])
    assert warning.startswith("1 of 2 pictures") and "modality.background=1 shows them on white" in warning
    (warning,) = modality.data_warnings([torch.full((3, 8, 8), 0.3), kept])
    assert warning.endswith("are of one colour")
    assert modality.data_warnings([lost, *[kept] * 20]) == []

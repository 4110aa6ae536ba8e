"""Synthetic shapes: pure functions of seed and index, told apart by their area."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

from modalities.image import ImageModality
from scm_media.data import ShapesDataset
from scm_media.data.shapes import SHAPE_CLASSES, distance_outside


def test_pictures_are_functions_of_seed_and_index():
    dataset = ShapesDataset(modality=ImageModality(size=16), num=20, seed=4)
    batch = dataset.batch([7, 19, 7])
    assert torch.equal(batch.sample[0], batch.sample[2])
    assert torch.equal(dataset[19].sample, batch.sample[1])
    assert torch.equal(ShapesDataset(modality=ImageModality(size=16), num=90, seed=4)[7].sample, batch.sample[0])
    assert not torch.equal(ShapesDataset(modality=ImageModality(size=16), num=20, seed=5)[7].sample, batch.sample[0])


def test_classes_take_turns_and_are_counted():
    dataset = ShapesDataset(modality=ImageModality(size=16), num=10)
    assert dataset.label_counts == {"class": (3, 3, 2, 2)}
    assert dataset.batch(range(10)).labels["class"].tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 0, 1]


def test_held_out_pictures_are_others():
    modality = ImageModality(size=16)
    train = ShapesDataset(modality=modality, num=100)
    held_out = ShapesDataset(modality=modality, num=100, split="held_out", held_out=0.1)
    assert len(held_out) == 10
    seen = {tuple(sample.flatten().tolist()) for sample in train.batch(range(100)).sample}
    assert not seen & {tuple(sample.flatten().tolist()) for sample in held_out.batch(range(10)).sample}


@pytest.mark.parametrize("channels", [1, 3])
def test_samples_lie_in_range_and_use_it(channels):
    sample = ShapesDataset(modality=ImageModality(size=16, channels=channels), num=64).batch(range(64)).sample
    assert sample.shape == (64, channels, 16, 16)
    assert sample.min() == -1
    assert 0.7 < sample.max() <= 1
    lit = (sample.amax(1) > -0.5).flatten(1).float().mean(1)
    assert lit.min() > 0.02
    assert lit.max() < 0.6


def test_shapes_have_the_areas_that_geometry_gives_them():
    side = torch.linspace(-1, 1, 801)
    inside = distance_outside(side, side[:, None], torch.full((1, 1, 1), 0.8)) < 0
    area = inside.float().mean((0, 2, 3)) * 4
    expected = [
        math.pi * 0.64,
        (2 * 0.8 * 0.8) ** 2,
        3 * math.sqrt(3) / 4 * 0.64,
        2 * (1.6 * 0.48) - 0.48**2,
    ]
    assert len(SHAPE_CLASSES) == len(expected)
    assert torch.allclose(area, torch.tensor(expected), rtol=0.02)


def test_what_shapes_cannot_be_is_refused():
    with pytest.raises(ValueError, match="data=folder"):
        ShapesDataset(modality=ImageModality(), root="pictures")
    with pytest.raises(ValueError, match=r"waveform asks for \(1, 800\)"):
        ShapesDataset(modality=SimpleNamespace(name="waveform", shape=lambda: (1, 800)))
    with pytest.raises(ValueError, match=r"data\.num"):
        ShapesDataset(modality=ImageModality(), num=0)
    with pytest.raises(IndexError):
        ShapesDataset(modality=ImageModality(), num=4)[4]

"""Moving shapes: pure functions of seed and index, that go where their labels say."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from modalities.video import VideoModality
from modalities.video.moving import DIRECTIONS, MovingShapesDataset


def modality(channels: int = 1, length: int = 6, height: int = 16, width: int = 16) -> VideoModality:
    return VideoModality(num_frames=length, size=[height, width], channels=channels)


def test_clips_are_functions_of_seed_and_index():
    dataset = MovingShapesDataset(modality=modality(3), num=40, seed=4)
    batch = dataset.batch([7, 31, 7])
    assert batch.sample.shape == (3, 3, 6, 16, 16)
    assert torch.equal(batch.sample[0], batch.sample[2])
    assert torch.equal(dataset[31].sample, batch.sample[1])
    assert torch.equal(MovingShapesDataset(modality=modality(3), num=90, seed=4)[7].sample, batch.sample[0])
    assert not torch.equal(MovingShapesDataset(modality=modality(3), num=40, seed=5)[7].sample, batch.sample[0])


def test_every_shape_meets_every_direction_and_held_out_ones_are_others():
    train = MovingShapesDataset(modality=modality(), num=160)
    labels = train.batch(range(160)).labels
    assert len(set(zip(labels["shape"].tolist(), labels["motion"].tolist(), strict=True))) == 16
    assert train.label_counts == {"shape": (40,) * 4, "motion": (40,) * 4}
    held_out = MovingShapesDataset(modality=modality(), num=160, split="held_out", held_out=0.1)
    assert len(held_out) == 16
    seen = {tuple(sample.flatten().tolist()) for sample in train.batch(range(160)).sample}
    assert not seen & {tuple(sample.flatten().tolist()) for sample in held_out.batch(range(16)).sample}


def test_shapes_go_where_the_label_says_and_stay_inside():
    dataset = MovingShapesDataset(modality=modality(1, 6, 24, 24), num=64)
    batch = dataset.batch(range(64))
    weight = (batch.sample[:, 0] + 1) / 2
    mass = weight.sum((2, 3))
    assert ((mass.amax(1) - mass.amin(1)) < 0.1 * mass.amax(1)).all(), "none leaves the picture"
    places = torch.arange(24.0)
    x, y = (weight.sum(2) * places).sum(2) / mass, (weight.sum(3) * places).sum(2) / mass
    for number, name in enumerate(DIRECTIONS):
        own = batch.labels["motion"] == number
        way = torch.tensor(DIRECTIONS[name], dtype=torch.float32)
        moved = torch.stack([x[own].diff(dim=1), y[own].diff(dim=1)], dim=-1)
        assert ((moved @ way) > 0.5).all(), f"{name}: half a pixel a frame at least"
        assert (moved @ way.flip(0)).abs().max() < 0.2, "and not aside"
    assert batch.sample.abs().max() <= 1


def test_what_they_cannot_be_is_refused():
    with pytest.raises(ValueError, match="data=folder"):
        MovingShapesDataset(modality=modality(), root="clips")
    with pytest.raises(ValueError, match=r"picture asks for \(1, 8, 8\)"):
        MovingShapesDataset(modality=SimpleNamespace(name="picture", shape=lambda: (1, 8, 8)))
    with pytest.raises(ValueError, match=r"data\.num"):
        MovingShapesDataset(modality=modality(), num=0)
    with pytest.raises(IndexError):
        MovingShapesDataset(modality=modality(), num=4)[4]

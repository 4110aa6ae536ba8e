"""Reference statistics: what they measure, and their file."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from scm_media.data.examples import Batch
from scm_media.evaluation import Moments, Reference, frechet_distance, make_reference
from tests.evaluation.conftest import random_batches


class MeanEmbedder(nn.Module):
    """Features: four numbers of the sample; the class it sees: whether the first is positive."""

    def features(self, sample):
        return sample.flatten(1)[:, :4]

    def logits(self, sample):
        first = self.features(sample)[:, 0]
        return {"sign": torch.stack([-first, first], 1)}


def _batches(num, seed, right=1.0):
    generator = torch.Generator().manual_seed(seed)
    samples = torch.randn(num, 1, 2, 2, generator=generator)
    labels = (samples[:, 0, 0, 0] > 0).long()
    flipped = round(num * (1 - right))
    labels[:flipped] = 1 - labels[:flipped]
    return [Batch(sample, {"sign": label}) for sample, label in zip(samples.split(50), labels.split(50), strict=True)]


def test_statistics_are_those_of_all_training_samples():
    batches = _batches(1000, 0)
    reference = make_reference(MeanEmbedder(), batches, _batches(1200, 1, right=0.9), num_neighbours=64)
    features = torch.cat([batch.sample for batch in batches]).flatten(1)
    assert torch.allclose(reference.mean, features.double().mean(0))
    assert torch.allclose(reference.covariance, features.double().T.cov())
    assert reference.neighbours.shape == (64, 4)
    assert (torch.cdist(reference.neighbours, features).min(1).values < 1e-2).all()
    assert reference.accuracy == pytest.approx(0.9)
    assert sorted(reference.held_out_distances) == [500, 1000, 1200]
    assert reference.held_out_distances[1200] < 0.05
    assert reference.precision > 0.8


def test_the_floor_of_all_held_out_data_is_their_distance():
    train, held_out = _batches(400, 0), _batches(300, 1)
    reference = make_reference(MeanEmbedder(), train, held_out)
    a, b = (Moments.of(torch.cat([batch.sample for batch in side]).flatten(1)) for side in (train, held_out))
    expected = frechet_distance(b.mean, b.covariance, a.mean, a.covariance)
    assert reference.held_out_distance(300) == pytest.approx(expected, rel=1e-9)


def test_floors_between_measured_numbers_are_linear_in_one_over_n():
    reference = Reference(
        torch.zeros(1), torch.eye(1), torch.zeros(1, 1), 1, {1000: 30.0, 2000: 20.0}, None, None, None
    )
    assert reference.held_out_distance(1000) == 30
    assert reference.held_out_distance(1500) == pytest.approx(10 + 20_000 / 1500)
    assert reference.held_out_distance(100) == 30
    assert reference.held_out_distance(10**6) == 20


def test_neighbours_are_chosen_from_all_training_data_and_held_out_data_are_shuffled():
    first, second = (torch.randn(600, 1, 2, 2) * 0.1 + shift for shift in (-1.0, 1.0))
    batches = [Batch(part) for part in torch.cat([first, second]).split(50)]  # one class after the other
    reference = make_reference(MeanEmbedder(), batches, batches, num_neighbours=200)
    assert 0.35 < (reference.neighbours[:, 0] > 0).double().mean() < 0.65
    assert reference.held_out_distance(500) < 0.1 * reference.frechet(first[:500].flatten(1))


def test_round_trip_through_a_file(tmp_path):
    reference = make_reference(MeanEmbedder(), _batches(200, 0), _batches(100, 1), num_neighbours=20)
    reference.save(tmp_path / "reference.safetensors")
    again = Reference.load(tmp_path / "reference.safetensors")
    assert torch.equal(again.neighbours, reference.neighbours)
    assert torch.equal(again.covariance, reference.covariance)
    assert again.held_out_distances == reference.held_out_distances
    assert (again.accuracy, again.recall, again.num_train) == (reference.accuracy, reference.recall, 200)


def test_nothing_held_out_and_nothing_at_all():
    reference = make_reference(MeanEmbedder(), _batches(100, 0), [])
    assert reference.held_out_distance(100) is None
    assert reference.accuracy is None
    with pytest.raises(ValueError, match="no training samples"):
        make_reference(MeanEmbedder(), [], random_batches(10, 0))

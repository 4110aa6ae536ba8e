"""The feature network of images."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from modalities.image.features import ImageClassifier


def test_shapes_of_features_and_scores():
    network = ImageClassifier(3, {"class": 5, "hue": 0, "size": 2}, width=4, num_features=16).eval()
    samples = torch.rand(6, 3, 32, 32) * 2 - 1
    assert network.features(samples).shape == (6, 16)
    assert {name: tuple(scores.shape) for name, scores in network(samples).items()} == {"class": (6, 5), "size": (6, 2)}
    assert torch.equal(network.logits(samples)["class"], network(samples)["class"])
    assert network.features(torch.rand(2, 3, 20, 48)).shape == (2, 16)


def test_features_do_not_depend_on_the_batch():
    network = ImageClassifier(1, {"class": 2}, width=4).eval()
    samples = torch.rand(5, 1, 32, 32)
    assert torch.allclose(network.features(samples)[2:3], network.features(samples[2:3]), atol=1e-5)


def test_fits_its_share_of_a_bundled_model():
    network = ImageClassifier(1, {"class": 10})
    assert 2 * sum(tensor.numel() for tensor in network.state_dict().values()) < 1_000_000


def test_learns_to_tell_simple_pictures_apart():
    network = ImageClassifier(1, {"class": 2}, width=4, num_features=8)
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    labels = torch.arange(64) % 2
    samples = torch.randn(64, 1, 16, 16) * 0.3
    samples[labels == 1, :, 4:8, :] += 0.5
    for _ in range(30):
        loss = functional.cross_entropy(network(samples)["class"], labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert (network.eval()(samples)["class"].argmax(1) == labels).float().mean() > 0.95


def test_a_classifier_without_classes_is_refused():
    with pytest.raises(ValueError, match="needs a label with classes"):
        ImageClassifier(1, {"pitch": 0})

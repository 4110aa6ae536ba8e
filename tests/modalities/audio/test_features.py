"""The feature network of sounds."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from modalities.audio.features import AudioClassifier

RATE = 8_000


def tones(hertz: torch.Tensor, num_samples: int = 4_000) -> torch.Tensor:
    """Sines ``(B, 1, T)`` of these frequencies."""
    return torch.sin(2 * math.pi * hertz[:, None, None] * torch.arange(num_samples) / RATE)


def test_a_full_scale_sine_is_near_zero_and_silence_at_the_floor():
    network = AudioClassifier(1, {"class": 2}, RATE)
    levels = network.spectrogram(torch.cat([tones(torch.tensor([300.0])), torch.zeros(1, 1, 4_000)]))
    assert levels[0].max() == pytest.approx(0, abs=0.3)
    assert torch.allclose(levels[1], torch.tensor(-4.0))
    louder, softer = (network.spectrogram(tones(torch.tensor([300.0])) * gain).amax() for gain in (1.0, 0.1))
    assert louder - softer == pytest.approx(1.0, abs=1e-3), "tenfold amplitude is one more"


def test_shapes_of_features_and_scores():
    network = AudioClassifier(2, {"family": 5, "velocity": 0, "pitch": 12}, RATE, width=4, num_features=16).eval()
    samples = torch.rand(6, 2, 4_096) * 2 - 1
    assert network.features(samples).shape == (6, 16)
    assert {name: tuple(scores.shape) for name, scores in network(samples).items()} == {
        "family": (6, 5),
        "pitch": (6, 12),
    }
    assert torch.equal(network.logits(samples)["family"], network(samples)["family"])
    for length in (100, 511, 700, 20_000):
        assert network.features(torch.rand(2, 2, length)).shape == (2, 16)


def test_features_do_not_depend_on_the_batch():
    network = AudioClassifier(1, {"class": 2}, RATE, width=4).eval()
    samples = torch.rand(5, 1, 4_096)
    assert torch.allclose(network.features(samples)[2:3], network.features(samples[2:3]), atol=1e-5)


def test_fits_its_share_of_a_bundled_model():
    network = AudioClassifier(1, {"family": 16, "pitch": 88}, 22_050)
    assert 2 * sum(tensor.numel() for tensor in network.state_dict().values()) < 1_000_000


def test_learns_to_tell_a_semitone():
    network = AudioClassifier(1, {"pitch": 2}, RATE, width=4, num_features=8)
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(24) % 2
    samples = tones(220 * 2 ** (labels / 12), 2_048) * (0.1 + 0.9 * torch.rand(24, 1, 1, generator=generator))
    samples = samples + 0.01 * torch.randn(samples.shape, generator=generator)
    for _ in range(25):
        loss = functional.cross_entropy(network(samples)["pitch"], labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert (network.eval()(samples)["pitch"].argmax(1) == labels).float().mean() > 0.95


def test_what_cannot_be_classified_is_refused():
    with pytest.raises(ValueError, match="needs a label with classes"):
        AudioClassifier(1, {"velocity": 0}, RATE)
    with pytest.raises(ValueError, match=r"sample_rate must lie in 60"):
        AudioClassifier(1, {"class": 2}, 0)

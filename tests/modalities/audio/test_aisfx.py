"""The network that was trained on sound effects: the installed package's weights, what it sees, when it is refused."""

from __future__ import annotations

import math
import sys

import pytest
import torch

from modalities.audio import AudioModality, aisfx
from modalities.audio.aisfx import AiSFX
from scm_media.evaluation import named_network, project_features


@pytest.fixture(scope="module")
def network():
    return AiSFX(sample_rate=22_050)


def tone(hertz: float, rate: int, seconds: float = 1.0) -> torch.Tensor:
    return torch.sin(2 * math.pi * hertz * torch.arange(int(rate * seconds)) / rate)[None, None]


@torch.inference_mode()
def test_features_have_512_dimensions_and_tell_sounds_apart(network):
    sine, neighbour = tone(440, 22_050), tone(450, 22_050)
    noise = torch.randn(sine.shape, generator=torch.Generator().manual_seed(0)) * 0.3
    features = network.features(torch.cat([sine, neighbour, noise]))
    assert features.shape == (3, 512)
    assert (features[0] - features[1]).norm() < 0.3 * (features[0] - features[2]).norm()
    assert network.logits(sine) == {}


@torch.inference_mode()
@pytest.mark.parametrize("flushed", [False, True])
def test_how_denormals_are_calculated_elsewhere_is_left_as_it_was(network, flushed):
    torch.set_flush_denormal(flushed)
    try:
        network.features(tone(440, 22_050))
        assert (torch.tensor([1e-40]) * 0.5 == 0).item() is flushed
    finally:
        torch.set_flush_denormal(False)


def test_what_it_sees_is_the_compressed_power_that_it_was_trained_on(network):
    """A full-scale sine's line has the power (N / 4)² under a Hann window, of which its band's filter takes a share."""
    seen = AiSFX.spectrogram(network, tone(3_000, 22_050))
    assert seen.shape == (1, 44, 96)
    bands = seen[0, 20]
    centre = bands.argmax()
    mel = 2595 * math.log10(1 + 3_000 / 700)
    assert centre == round(mel / (2595 * math.log10(1 + 22_050 / 700)) * 97) - 1
    power = (10 ** (bands * aisfx.LARGEST) - 1) / 1e4
    assert 0.05 * 512**2 < power[centre] < 512**2
    assert seen.max() < 1
    assert AiSFX.spectrogram(network, torch.zeros(1, 1, 22_050)).abs().max() == 0


def test_the_rate_is_brought_to_its_own_and_channels_to_their_mean(network):
    at_44, at_22 = AiSFX(44_100).spectrogram(tone(1_000, 44_100)), network.spectrogram(tone(1_000, 22_050))
    inner = slice(2, -2)
    loud = at_44[:, inner] > 0.3
    assert loud.sum() > 40 * 3
    assert torch.allclose(at_44[:, inner][loud], at_22[:, inner][loud], atol=0.01)
    stereo = torch.cat([tone(1_000, 22_050), -tone(1_000, 22_050)], 1)
    assert network.spectrogram(stereo).abs().max() == 0


@torch.inference_mode()
def test_short_sounds_are_followed_by_silence_and_long_ones_taken_block_by_block(network, monkeypatch):
    seen = []
    monkeypatch.setattr(network.network, "forward", lambda blocks: seen.append(blocks) or blocks.amax((1, 2))[:, None])
    network.features(tone(440, 22_050, 0.5).repeat(2, 1, 1))
    assert seen[0].shape == (2, 100, 96)
    assert seen[0][:, 30:].abs().max() == 0
    rising = tone(440, 22_050, 7.0) * torch.linspace(0, 1, 7 * 22_050)
    features = network.features(rising)
    assert seen[1].shape == (5, 100, 96), "303 frames hold five blocks of 100, half a block apart"
    assert features.item() == pytest.approx(seen[1].amax((1, 2)).mean().item())


def test_another_checkpoint_is_refused(tmp_path):
    file = tmp_path / "checkpoint.pth"
    file.write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(ValueError, match=r"checkpoint.pth has the SHA-256 .*expected 499ea75909c9"):
        aisfx._read(file)


def test_a_missing_package_is_named_with_the_way_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "aisfx.models.cnn2d", None)
    with pytest.raises(ValueError, match=r"aisfx.*pip install --no-deps aisfx==0\.1\.2"):
        AiSFX(22_050)


@torch.inference_mode()
def test_it_is_offered_by_name_at_the_modality_s_own_rate():
    found = named_network("aisfx", AudioModality(sample_rate=16_000))
    assert found.network.sample_rate == 16_000
    assert found.features(tone(440, 16_000)).shape == (1, 512)
    assert project_features(found, (1, 16_000)).features(tone(440, 16_000)).shape == (1, 128)


def test_a_rate_that_is_none_is_refused():
    with pytest.raises(ValueError, match="sample_rate must be in Hz, got 0"):
        AiSFX(0)

"""The distance of sounds by their spectra, and the critic of spectra."""

from __future__ import annotations

import math

import pytest
import torch

from modalities.audio import ComplexSpectrogram, SpectralAutoencoder
from modalities.audio.loss import SpectralDistance, SpectrogramCritic
from scm_media.reconstruction import ReconstructionLoss
from tests.modalities.audio.signals import RATE, noise, notes

ALL = {"mel_weight": 1.0, "sample_rate": RATE}


def test_a_sound_is_at_no_distance_from_itself():
    samples = notes()
    for name, term in SpectralDistance(**ALL)(samples, samples).items():
        assert term.shape == (8,), name
        assert term.abs().max() < 1e-3, name


def test_terms_of_a_louder_sound_are_those_of_the_formulas():
    """Twice the amplitude: ‖|X| − 2|X|‖ / ‖|X|‖ = 1, |ln 2|, √2 − 1 for roots, and ln 2 in each mel band."""
    samples = noise(num=3).double()
    terms = SpectralDistance(**ALL).double()(samples, 2 * samples)
    assert terms["convergence"].tolist() == pytest.approx([1.0] * 3, rel=1e-3)
    assert terms["log_magnitude"].tolist() == pytest.approx([math.log(2)] * 3, rel=1e-4)
    assert terms["complex"].tolist() == pytest.approx([math.sqrt(2) - 1] * 3, rel=1e-2)
    assert terms["mel"].tolist() == pytest.approx([math.log(2)] * 3, rel=1e-4)
    assert torch.allclose(terms["waveform"], samples.abs().mean((1, 2)))


def test_a_turned_phase_is_heard_by_the_complex_term_alone():
    samples = notes()
    terms = SpectralDistance(**ALL)(samples, -samples)
    assert terms["complex"].tolist() == pytest.approx([2.0] * 8, rel=0.1)
    assert max(terms[name].abs().max() for name in ("convergence", "log_magnitude", "mel")) < 1e-3


def test_weights_scale_terms_and_those_of_0_are_left_out():
    samples, other = notes(), noise()
    plain = SpectralDistance()(samples, other)
    assert set(plain) == {"waveform", "complex", "convergence", "log_magnitude"}
    weighed = SpectralDistance(waveform_weight=0, complex_weight=3.0)(samples, other)
    assert set(weighed) == {"complex", "convergence", "log_magnitude"}
    assert torch.allclose(weighed["complex"], 3 * plain["complex"])
    assert set(SpectralDistance(complex_weight=0, convergence_weight=0, log_magnitude_weight=0)(samples, other)) == {
        "waveform"
    }


def test_gradients_are_finite_in_silence_and_at_the_sound_itself():
    silence = torch.zeros(2, 1, 4096)
    for wanted, start in ((silence, silence), (notes(num=2, length=4096), silence), (silence, noise(2, 4096))):
        made = start.clone().requires_grad_()
        sum(SpectralDistance(**ALL)(wanted, made).values()).sum().backward()
        assert made.grad.isfinite().all()


def test_each_clip_has_a_distance_of_its_own():
    samples, other = notes(), noise()
    together = SpectralDistance(**ALL)(samples, other)
    alone = SpectralDistance(**ALL)(samples[2:3], other[2:3])
    assert all(torch.allclose(together[name][2:3], alone[name], rtol=1e-4) for name in together)


def test_the_critic_takes_part_in_the_reconstruction_loss():
    samples = notes(num=2, length=1024)
    net = SpectralAutoencoder(ComplexSpectrogram(1, 64, 32), latent_channels=2, strides=[[2, 2]], widths=(8,))
    net.prepare([samples])
    critic = SpectrogramCritic(1, windows=(64, 128), width=4, num_layers=2)
    assert critic(samples).shape == (2, 1, (8 * 16) + (16 * 8))
    loss = ReconstructionLoss(
        net,
        distance=SpectralDistance(windows=(64,)),
        perceptual_weight=0,
        adversarial_weight=0.5,
        adversarial_start=1,
        critic=critic,
    )
    value, terms = loss(samples, torch.tensor(1.0))
    value.backward()
    assert {"score_real", "score_made", "complex"} <= terms.keys()
    assert all(parameter.grad is not None for parameter in critic.parameters())
    assert loss.discriminator is critic


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"complex_weight": -1.0}, r"distance\.complex_weight must not be negative"),
        (
            dict.fromkeys(("waveform_weight", "complex_weight", "convergence_weight", "log_magnitude_weight"), 0),
            "are 0",
        ),
        ({"windows": []}, "windows must be multiples of 4"),
        ({"windows": [510]}, "windows must be multiples of 4"),
        ({"mel_weight": 1.0}, r"mel_weight needs distance\.sample_rate"),
    ],
)
def test_keys_that_cannot_be_are_refused(keys, expected):
    with pytest.raises(ValueError, match=expected):
        SpectralDistance(**keys)


def test_sounds_shorter_than_a_window_name_the_key():
    with pytest.raises(ValueError, match=r"512 samples are too short for a window of 2048.*distance\.windows"):
        SpectralDistance()(torch.zeros(1, 1, 512), torch.zeros(1, 1, 512))

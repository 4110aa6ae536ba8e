"""The vocoder over log-mel spectrograms: what it starts from, what it keeps, that it learns."""

from __future__ import annotations

import math

import pytest
import torch

from modalities.audio import LogMelSpectrogram, VocodedMel
from modalities.audio.loss import SpectralDistance
from scm_media.reconstruction import ReconstructionLoss
from scm_media.testing import check_autoencoder
from tests.modalities.audio.signals import RATE, noise, notes

SMALL = {"window": 512, "hop": 128, "num_mels": 32, "width": 16, "depth": 2}


def network(channels: int = 1, **changes) -> VocodedMel:
    return VocodedMel(RATE, channels=channels, **SMALL | changes)


def fitted(samples) -> VocodedMel:
    made = network(samples.shape[1])
    made.fit(samples.split(3))
    return made


def test_latents_are_those_of_the_log_mel_front_end():
    samples = notes()
    front = LogMelSpectrogram(RATE, window=512, hop=128, num_mels=32)
    front.fit([samples])
    assert torch.equal(fitted(samples).encode(samples), front.encode(samples))


def test_a_fresh_vocoder_has_the_loudness_of_each_frame_already():
    samples = noise(length=4096)
    made = fitted(samples).waveform(fitted(samples).encode(samples)).detach()
    wanted, found = (x.unflatten(-1, (-1, 128)).square().mean((0, 1, 3))[2:-2] for x in (samples, made))
    # Of four frames over each sample whose phases do not fit each other a quarter of the power is left; means of
    # magnitudes, which the bands are, have π/4 of it.
    assert torch.allclose(found / wanted, torch.tensor(math.pi / 16), rtol=0.15)
    assert found.std() < 0.5 * found.mean()


def test_the_waveform_of_the_heads_spectrum_is_the_transforms_inverse():
    net = network().double()
    with torch.no_grad():
        net.vocoder.head.weight.zero_()  # magnitudes as the bands give them, in each frame the same phases
    log_mel = net.mel(notes(num=2).double())
    phases = net.vocoder.head.bias[257:]
    expected = net.frames.synthesise(
        torch.polar(*torch.broadcast_tensors(net.mel.magnitudes(log_mel, 0).clamp(min=1e-5), phases))
    )
    assert torch.allclose(net.synthesize(log_mel), expected)


def test_the_contract_is_kept():
    samples = notes(num=200, length=2048)
    check_autoencoder(fitted(samples), samples, tolerance=0.3)


def test_shapes_masks_and_stereo():
    samples = torch.cat([noise(num=2), notes(num=2)], 1)
    net = fitted(samples)
    assert net.latent_shape((2, 8192)) == tuple(net.encode(samples).shape[1:]) == (2, 32, 64)
    assert net.sample_shape((2, 32, 64)) == (2, 8192)
    assert net.latent_mask(torch.ones(2, 1, 8192)).shape == (2, 1, 32, 64)
    made = net.synthesize(net.mel(samples))
    assert torch.allclose(made[:, 1:], net.vocoder(net.mel(samples)[:, 1])[:, None], atol=1e-6)


def test_a_clip_does_not_depend_on_its_batch():
    samples = notes()
    net = fitted(samples)
    latent = net.encode(samples)
    assert torch.allclose(net.decode(latent)[2:3], net.decode(latent[2:3]), atol=1e-6)


def test_gradients_reach_every_weight():
    samples, net = notes(num=2), network()
    distance = SpectralDistance(mel_weight=1.0, sample_rate=RATE)
    sum(distance(samples, net.synthesize(net.posterior(samples)[0])).values()).mean().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name


def test_a_magnitude_out_of_all_bounds_gives_no_nan():
    net = network()
    with torch.no_grad():
        net.vocoder.head.bias.fill_(1e4)
    net.synthesize(net.mel(notes(num=1))).sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in net.parameters())


def test_training_by_the_reconstruction_loss_brings_spectra_back_better():
    samples, net = notes(length=2048), network()
    distance = SpectralDistance(
        windows=(256,), waveform_weight=0, complex_weight=0, mel_weight=1, sample_rate=RATE, num_mels=32
    )
    loss = ReconstructionLoss(net, distance=distance, perceptual_weight=0, kl_weight=0)
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    values = []
    for _ in range(20):
        value, terms = loss(samples, torch.tensor(0.0))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert values[-1] < 0.8 * values[0]
    assert {"convergence", "log_magnitude", "mel"} <= terms.keys()


def test_under_autocast_spectra_stay_in_single_precision_and_gradients_finite():
    samples, net = notes(num=2, length=2048), network()
    log_mel = net.mel(samples)
    magnitudes = net.mel.magnitudes(log_mel, 2)
    loss = ReconstructionLoss(net, distance=SpectralDistance(windows=(256,)), perceptual_weight=0, kl_weight=0)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(net.mel(samples), log_mel)
        assert torch.equal(net.mel.magnitudes(log_mel, 2), magnitudes)
        value, _ = loss(samples, torch.tensor(0.0))
    value.backward()
    assert net.synthesize(log_mel).dtype == torch.float32
    assert all(parameter.grad.isfinite().all() for parameter in net.parameters())


def test_weights_hold_the_vocoder_and_the_scale_alone():
    names = network().state_dict()
    assert all(name.startswith(("vocoder.", "scale.")) for name in names)
    assert not any("taper" in name or "filters" in name for name in names)


def test_sizes_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="width and depth must be at least 1, got 16 and 0"):
        network(depth=0)

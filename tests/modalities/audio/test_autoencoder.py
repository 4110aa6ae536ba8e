"""The convolutional autoencoder over spectrograms, on complex ones and on vocoded mels."""

from __future__ import annotations

import pytest
import torch

from modalities.audio import ComplexSpectrogram, SpectralAutoencoder, VocodedMel
from modalities.audio.loss import SpectralDistance
from scm_media.reconstruction import ReconstructionLoss
from scm_media.testing import check_autoencoder
from tests.modalities.audio.signals import RATE, noise, notes, snr


def network(channels: int = 1, **changes) -> SpectralAutoencoder:
    front = ComplexSpectrogram(channels, window=64, hop=32)
    keys = {"latent_channels": 3, "strides": [[2, 1], [2, 4]], "widths": (8, 12), **changes}
    made = SpectralAutoencoder(front, **keys)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
    return made


def fitted(samples) -> SpectralAutoencoder:
    made = network(samples.shape[1])
    made.prepare(samples.split(3))
    made.fit(samples.split(5))
    return made


def test_latents_are_normalised_and_smaller_along_each_axis():
    samples = notes(num=64, length=1024)
    net = fitted(samples)
    latent = net.encode(samples)
    assert net.latent_shape((1, 1024)) == tuple(latent.shape[1:]) == (3, 8, 8)
    assert net.sample_shape((3, 8, 8)) == (1, 1024)
    assert torch.allclose(latent.transpose(0, 1).flatten(1).std(1, correction=0), torch.full((3,), 0.5), rtol=1e-4)
    assert net.decode(latent).shape == samples.shape


def test_the_contract_is_kept():
    samples = notes(num=200, length=1024)
    net = fitted(samples)
    net.inner.encoder[-1].bias.data[3:] = -20  # trained, posteriors are narrow
    check_autoencoder(net, samples, tolerance=0.5)


def test_codes_are_of_the_front_ends_latents_and_sound_is_its_inverse():
    samples = noise(num=2, length=1024)
    net = fitted(samples)
    mean, _ = net.posterior(samples)
    assert torch.equal(mean, net.inner.posterior(net.front.encode(samples))[0])
    assert torch.equal(net.synthesize(mean), net.front.waveform(net.inner.synthesize(mean)))
    assert torch.allclose(net.decode(net.encode(samples)), net.synthesize(mean).clamp(-1, 1), atol=1e-4)


def test_preparing_measures_the_front_end_and_fitting_leaves_it_alone():
    samples, net = notes(length=1024), network()
    for refused in (lambda: net.posterior(samples), lambda: net.fit([samples])):
        with pytest.raises(ValueError, match="never fitted"):
            refused()
    net.prepare([samples])
    before = net.front.deviation.clone()
    with pytest.raises(ValueError, match="never fitted"):
        net.encode(samples)
    net.fit([0.5 * samples])
    assert torch.equal(net.front.deviation, before)
    assert bool(net.inner.scale.trained)


def test_lengths_that_do_not_fit_name_the_modalitys_key():
    net = network(channels=2)
    for given in (lambda: net.latent_shape((2, 1000)), lambda: net.posterior(torch.zeros(1, 2, 1000))):
        with pytest.raises(ValueError, match=r"1000 samples .* multiple of 128 .*set modality.multiple=128"):
            given()
    with pytest.raises(ValueError, match=r"\(batch, 2, samples\)"):
        net.encode(torch.zeros(1, 1, 1024))


def test_masks_count_places_whose_hops_are_whole():
    net = network()
    mask = torch.zeros(1, 1, 512)
    mask[..., :300] = 1
    assert net.latent_mask(mask)[0, 0, 3].tolist() == [1, 1, 0, 0]


def test_a_clip_does_not_depend_on_its_batch():
    samples = notes(length=1024)
    net = fitted(samples)
    latent = net.encode(samples)
    assert torch.allclose(net.encode(samples[3:4]), latent[3:4], atol=1e-5)
    assert torch.allclose(net.decode(latent[3:4]), net.decode(latent)[3:4], atol=1e-5)


def test_training_brings_waveforms_back_better():
    samples, net = notes(length=1024), network(strides=[[1, 1]], widths=(8,), latent_channels=4)
    net.prepare([samples])
    distance = SpectralDistance(windows=(64, 256))
    loss = ReconstructionLoss(net, distance=distance, perceptual_weight=0, kl_weight=1e-4)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    values = []
    for _ in range(40):
        value, _ = loss(samples, torch.tensor(0.0))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert values[-1] < 0.7 * values[0]
    net.fit([samples])
    assert snr(samples, net.decode(net.encode(samples))) > 1.5


def test_a_vocoded_mel_is_a_front_end_too_and_its_vocoder_is_trained_with_the_rest():
    samples = notes(length=1024)
    front = VocodedMel(RATE, window=256, hop=64, num_mels=16, width=8, depth=1)
    net = SpectralAutoencoder(front, latent_channels=2, strides=[[2, 2]], widths=(8,), depth=1)
    net.prepare([samples])
    assert net.latent_shape((1, 1024)) == (2, 8, 8)
    made = net.synthesize(net.posterior(samples)[0])
    assert made.shape == samples.shape
    made.square().mean().backward()
    assert front.vocoder.head.weight.grad.abs().max() > 0
    assert net.inner.encoder[0].weight.grad.abs().max() > 0
    net.fit([samples])
    assert net.decode(net.encode(samples)).shape == samples.shape

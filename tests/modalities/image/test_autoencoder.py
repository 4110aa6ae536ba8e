"""Autoencoders of pictures: normalised by what was measured, refused before."""

from __future__ import annotations

import pytest
import torch

from modalities.image import ImageAutoencoder, PixelAutoencoder
from scm_media.testing import check_autoencoder


@pytest.fixture
def samples(generator):
    scale, shift = torch.tensor([0.1, 0.2, 0.05])[:, None, None], torch.tensor([0.3, -0.4, 0.0])[:, None, None]
    return (torch.randn(300, 3, 8, 6, generator=generator) * scale + shift).clamp(-1, 1)


@pytest.fixture
def fitted(samples):
    autoencoder = PixelAutoencoder(3)
    autoencoder.fit(samples.split([100, 7, 193]))
    return autoencoder


@pytest.mark.parametrize("sigma_data", [0.5, 1.3])
def test_latents_have_mean_0_and_the_flows_deviation(samples, sigma_data):
    autoencoder = PixelAutoencoder(3, sigma_data=sigma_data)
    autoencoder.fit(samples.split(64))
    latent = autoencoder.encode(samples).transpose(0, 1).flatten(1)
    assert torch.allclose(latent.mean(1), torch.zeros(3), atol=1e-5)
    assert torch.allclose(latent.std(1, correction=0), torch.full((3,), sigma_data), rtol=1e-5)


def test_statistics_do_not_depend_on_the_batches(samples, fitted):
    values = samples.transpose(0, 1).flatten(1).double()
    assert torch.allclose(fitted.mean.double(), values.mean(1), rtol=1e-6)
    assert torch.allclose(fitted.std.double(), values.std(1, correction=0), rtol=1e-6)


def test_statistics_survive_a_large_mean():
    autoencoder = PixelAutoencoder(1)
    values = 0.9999 + 1e-5 * torch.tensor([[-1.0, 1.0] * 50]).reshape(10, 1, 10)
    autoencoder.fit(values.split(3))
    assert autoencoder.std.item() == pytest.approx(1e-5, rel=0.01)


def test_a_round_trip_gives_the_sample_back(samples, fitted):
    assert (fitted.decode(fitted.encode(samples)) - samples).abs().max() < 1e-6
    assert fitted.decode(torch.full((1, 3, 2, 2), 100.0)).max() == 1


def test_the_contract_is_kept(samples, fitted):
    check_autoencoder(fitted, samples, tolerance=1e-6)


def test_weights_carry_the_statistics(samples, fitted):
    loaded = PixelAutoencoder(3)
    with pytest.raises(ValueError, match="never fitted"):
        loaded.encode(samples)
    with pytest.raises(ValueError, match="never fitted"):
        loaded.decode(samples)
    loaded.load_state_dict(fitted.state_dict())
    assert torch.equal(loaded.encode(samples), fitted.encode(samples))


def test_a_channel_that_never_changes_is_refused(samples):
    samples[:, 1] = 0.25
    with pytest.raises(ValueError, match=r"channel 1 .* deviation 0\.0"):
        PixelAutoencoder(3).fit([samples])


def test_what_cannot_be_measured_is_refused(samples):
    with pytest.raises(ValueError, match="no samples"):
        PixelAutoencoder(3).fit([])
    samples[5, 2, 0, 0] = torch.nan
    with pytest.raises(ValueError, match="channel 2"):
        PixelAutoencoder(3).fit([samples])
    with pytest.raises(ValueError, match="3 channels"):
        PixelAutoencoder(3).fit([samples[:, :1]])
    with pytest.raises(ValueError, match="sigma_data"):
        PixelAutoencoder(3, sigma_data=0.0)


def test_a_failed_fit_leaves_the_old_statistics(samples, fitted):
    before = {name: tensor.clone() for name, tensor in fitted.state_dict().items()}
    with pytest.raises(ValueError, match="channel 0"):
        fitted.fit([torch.zeros_like(samples)])
    assert all(torch.equal(before[name], tensor) for name, tensor in fitted.state_dict().items())


@pytest.mark.parametrize(
    ("keys", "latent_shape", "num_levels"),
    [
        ({"factor": 4}, (4, 16, 8), 3),
        ({"factor": 8, "finest": 2, "latent_channels": 6}, (6, 8, 4), 3),
        ({"factor": 16, "finest": 1}, (4, 4, 2), 5),
        ({"factor": 1}, (4, 64, 32), 1),
    ],
)
def test_a_convolutional_autoencoder_is_a_few_keys(keys, latent_shape, num_levels):
    autoencoder = ImageAutoencoder(3, width=8, depth=1, **keys)
    assert autoencoder.latent_shape((3, 64, 32)) == latent_shape
    assert autoencoder.sample_shape(latent_shape) == (3, 64, 32)
    widths = [layer.out_channels for layer in autoencoder.encoder if hasattr(layer, "out_channels")][:-1]
    assert widths == [8, 16, 32, 32, 32][:num_levels]


def test_a_convolutional_autoencoder_keeps_the_contract(generator):
    sample = torch.rand(300, 1, 8, 8, generator=generator) - 0.5
    autoencoder = ImageAutoencoder(1, factor=4, width=8, depth=1)
    autoencoder.fit(sample.split(64))
    # Fresh, it draws from a posterior as wide as the prior: here what is trained to be narrow is made so.
    autoencoder.encoder[-1].bias.data[4:] = -20
    check_autoencoder(autoencoder, sample, tolerance=2.0)


@pytest.mark.parametrize(
    ("keys", "expected"),
    [({"factor": 6}, "factor must be a power of two, got 6"), ({"factor": 2, "finest": 4}, "no less than finest 4")],
)
def test_factors_that_are_none_are_refused(keys, expected):
    with pytest.raises(ValueError, match=expected):
        ImageAutoencoder(1, **keys)

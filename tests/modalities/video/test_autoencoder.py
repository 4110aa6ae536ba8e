"""The autoencoder of videos: shapes by a few keys, the contract, pictures' weights, and the stage that trains it."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from modalities.image.autoencoder import ImageAutoencoder
from modalities.video.autoencoder import VideoAutoencoder, inflate, level_strides
from scm_media.masks import MaskSampler
from scm_media.reconstruction import ReconstructionLoss
from scm_media.testing import check_autoencoder


def still_and_moving(num=2, frames=7, size=16):
    generator = torch.Generator().manual_seed(0)
    return torch.rand(num, 3, frames, size, size, generator=generator) * 2 - 1


def shaken(network):
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
    return network


@pytest.mark.parametrize(
    ("keys", "strides"),
    [
        ((8, 3, 2, 1), [(1, 2, 2), (1, 2, 2), (3, 2, 2)]),
        ((8, 3, 2, 3), [(3, 2, 2), (1, 2, 2), (1, 2, 2)]),
        ((8, 4, 1, 1), [(1, 1, 1), (1, 2, 2), (2, 2, 2), (2, 2, 2)]),
        ((8, 4, 2, 2), [(2, 2, 2), (1, 2, 2), (2, 2, 2)]),
        ((4, 4, 2, 1), [(1, 2, 2), (4, 2, 2)]),
        ((4, 2, 4, 1), [(2, 4, 4)]),
        ((4, 1, 2, 1), [(1, 2, 2), (1, 2, 2)]),
    ],
)
def test_levels_share_the_factors(keys, strides):
    assert level_strides(*keys) == strides
    network = VideoAutoencoder(3, keys[0], keys[1], 4, width=8, finest=keys[2], finest_time=keys[3])
    assert network.latent_shape((3, 1 + 5 * keys[1], 32, 64)) == (4, 6, 32 // keys[0], 64 // keys[0])
    assert network.sample_shape((4, 6, 2, 3)) == (3, 1 + 5 * keys[1], 2 * keys[0], 3 * keys[0])


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"space_factor": 6}, "space_factor must be one of 1, 2, 4, 8, 16; got 6"),
        ({"space_factor": 2, "finest": 4}, "no less than finest 4"),
        ({"time_factor": 5}, "time_factor must be one of 1, 2, 3, 4; got 5"),
        ({"time_factor": 3, "finest_time": 2}, "finest_time must divide time_factor 3, got 2"),
    ],
)
def test_factors_that_are_none_are_refused(keys, expected):
    with pytest.raises(ValueError, match=expected):
        VideoAutoencoder(**keys)


def test_the_contract_is_kept():
    samples = torch.rand(120, 1, 4, 8, 8) - 0.5
    network = VideoAutoencoder(1, 4, 3, 4, width=8, finest=2)
    network.fit(samples.split(50))
    # Fresh, it draws from a posterior as wide as the prior: here what is trained to be narrow is made so.
    network.encoder[-1].inner.bias.data[4:] = -20
    check_autoencoder(network, samples, tolerance=2.0)


@pytest.mark.parametrize(("time_factor", "finest_time"), [(1, 1), (3, 1), (3, 3), (4, 1)])
def test_pictures_weights_code_every_frame_of_a_still_as_pictures(time_factor, finest_time):
    pictures = shaken(ImageAutoencoder(3, factor=8, latent_channels=4, width=8, depth=1, finest=2)).eval()
    sample = still_and_moving(frames=1 + 2 * time_factor)
    pictures.fit([sample[:, :, 0], sample[:, :, 1]])
    network = VideoAutoencoder(3, 8, time_factor, 4, width=8, depth=1, finest=2, finest_time=finest_time).eval()
    inflate(network, pictures.state_dict())
    with torch.no_grad():
        still = sample[:, :, :1].expand_as(sample)
        latent, alone = network.encode(still), pictures.encode(sample[:, :, 0])
        torch.testing.assert_close(latent, alone[:, :, None].expand_as(latent), rtol=0, atol=1e-5)
        made = network.decode(latent)
        torch.testing.assert_close(made, pictures.decode(alone)[:, :, None].expand_as(made), rtol=0, atol=1e-5)
        last = sample[:, :, ::time_factor]  # of each group
        moving = network.encode(sample)
        for frame in range(moving.shape[2]):
            torch.testing.assert_close(moving[:, :, frame], pictures.encode(last[:, :, frame]), rtol=0, atol=1e-5)


def test_weights_of_another_network_are_refused_by_name_and_change_nothing(tmp_path):
    keys = {"width": 8, "depth": 1, "finest": 2}
    network = VideoAutoencoder(3, 8, 3, 4, **keys)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    deeper = ImageAutoencoder(3, factor=8, latent_channels=4, **{**keys, "depth": 2})
    with pytest.raises(ValueError, match=r"no weights of the picture's part of this network \(\d+: .* is "):
        inflate(network, deeper.state_dict())
    wider = ImageAutoencoder(3, factor=8, latent_channels=4, **{**keys, "width": 16})
    with pytest.raises(ValueError, match=r"of \(16, .* is no weight of this network's, whose own is \(8,"):
        inflate(network, wider.state_dict())
    for name, content in {"broken.safetensors": b"no such thing", "missing.safetensors": None}.items():
        if content:
            (tmp_path / name).write_bytes(content)
        named = VideoAutoencoder(3, 8, 3, 4, **keys, image_weights=str(tmp_path / name))
        with pytest.raises(ValueError, match=r"autoencoder.network.image_weights=.*is no (safetensors )?file"):
            named.prepare([])
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


def test_training_may_start_from_a_picture_autoencoders_file(tmp_path):
    keys = {"width": 8, "depth": 1, "finest": 2}
    pictures = shaken(ImageAutoencoder(3, factor=4, latent_channels=4, **keys))
    save_file(pictures.state_dict(), tmp_path / "weights.safetensors")
    network = VideoAutoencoder(3, 4, 2, 4, **keys, image_weights=str(tmp_path / "weights.safetensors"))
    network.prepare([])
    kernel = network.encoder[0].inner.weight
    assert torch.equal(kernel[:, :, -1], pictures.encoder[0].weight)
    assert kernel[:, :, :-1].abs().max() == 0


def test_a_known_first_frame_is_the_first_latent_frame_exactly():
    network = VideoAutoencoder(3, 8, 3, 4, width=8, finest=2).eval().requires_grad_(False)
    sample = still_and_moving()
    shaken(network).fit([sample])
    mask = torch.zeros(1, 1, 7, 16, 16)
    mask[:, :, 0] = 1
    known = network.latent_mask(mask)
    assert known.flatten(3).mean(-1).flatten().tolist() == [1, 0, 0]
    latent, picture = network.encode(sample), network.encode(sample[:, :, :1])
    torch.testing.assert_close(latent[:, :, :1], picture, rtol=0, atol=1e-6)
    drawn = MaskSampler(1.0, ["first"], axis=-3).draw(latent)
    assert torch.equal(drawn, known.expand_as(drawn))


@pytest.mark.parametrize("critic", [pytest.param(0.0, marks=pytest.mark.slow), 0.5])
def test_it_trains_on_clips_and_pictures_and_brings_them_back_better(critic):
    torch.manual_seed(0)
    samples = torch.nn.functional.interpolate(torch.rand(8, 1, 2, 4, 4) * 2 - 1, (7, 16, 16), mode="trilinear")
    network = VideoAutoencoder(1, 4, 3, 4, width=8, finest=2, finest_time=3)
    loss = ReconstructionLoss(network, adversarial_weight=critic)
    optimizer = torch.optim.Adam(loss.parameters(), lr=5e-3)
    values = []
    for number in range(40):
        batch = samples[:, :, :1] if number % 4 == 3 and not critic else samples
        value, terms = loss(batch, torch.tensor(number))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        values.append(terms["reconstruction"].mean().item())
    assert values[-2] < (0.85 if critic else 0.65) * values[0]  # a critic pulls elsewhere too

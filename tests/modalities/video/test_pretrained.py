"""diffusers' video autoencoders behind our contract; stand-ins of the same calls where it is not installed."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from modalities.video.pretrained import LTXVideoAutoencoder, WanAutoencoder

WAN = {"base_dim": 4, "dim_mult": [1, 1, 1, 1], "num_res_blocks": 1}
LTX = {
    "block_out_channels": [8, 8, 8, 8],
    "decoder_block_out_channels": [8, 8, 8, 8],
    "layers_per_block": [1, 1, 1, 1, 1],
    "decoder_layers_per_block": [1, 1, 1, 1, 1],
}
KINDS = {
    "wan": (WanAutoencoder, WAN, 4, 8),
    "ltx": (LTXVideoAutoencoder, LTX, 8, 32),
}


class _StandIn(nn.Module):
    """One strided layer each way; the first frame is repeated before itself."""

    def __init__(self, channels, latents, time, side, **config):
        super().__init__()
        self.config = SimpleNamespace(**config)
        self.time, self.tiling = time, False
        size = (time, side, side)
        self.encoder = nn.Conv3d(channels, 2 * latents, size, size)
        self.decoder = nn.ConvTranspose3d(latents, channels, size, size)

    def enable_tiling(self):
        self.tiling = True

    def encode(self, x):
        first = x[:, :, :1].expand(-1, -1, self.time - 1, -1, -1)
        mean, scale = self.encoder(torch.cat([first, x], 2)).chunk(2, 1)
        return SimpleNamespace(latent_dist=SimpleNamespace(mean=mean, std=nn.functional.softplus(scale) + 1e-4))

    def decode(self, z, temb=None):
        return SimpleNamespace(sample=self.decoder(z)[:, :, self.time - 1 :])


class AutoencoderKLWan(_StandIn):
    """By its calls."""

    def __init__(self, z_dim, base_dim=96, dim_mult=(1, 2, 4, 4), num_res_blocks=2):
        super().__init__(3, z_dim, 4, 8, scale_factor_temporal=4, scale_factor_spatial=8)


class AutoencoderKLLTXVideo(_StandIn):
    """By its calls."""

    def __init__(self, in_channels, out_channels, latent_channels, timestep_conditioning=False, **keys):
        if not set(keys) <= set(LTX):
            raise TypeError(f"unexpected keyword arguments {sorted(set(keys) - set(LTX))}")
        super().__init__(in_channels, latent_channels, 8, 32, timestep_conditioning=timestep_conditioning)
        self.temporal_compression_ratio, self.spatial_compression_ratio = 8, 32


@pytest.fixture(autouse=True)
def package(monkeypatch):
    """The real package where it is installed."""
    if importlib.util.find_spec("diffusers") is None:
        module = ModuleType("diffusers")
        vars(module).update(AutoencoderKLWan=AutoencoderKLWan, AutoencoderKLLTXVideo=AutoencoderKLLTXVideo)
        monkeypatch.setitem(sys.modules, "diffusers", module)


@pytest.fixture(params=list(KINDS))
def kind(request):
    return request.param


def fitted(kind, folder):
    """An adapter of a network of random weights, which are in a file, and what it was fitted on."""
    torch.manual_seed(0)
    make, options, time, side = KINDS[kind]
    made = make(latent_channels=3, options=options)
    file = folder / "weights.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in made.network.state_dict().items()}, file)
    made = make(weights=str(file), latent_channels=3, options=options)
    samples = torch.rand(3, 3, 1 + time, side, 2 * side) * 2 - 1
    made.fit(samples.split(2))
    return made, samples


def test_the_contract_is_kept(kind, tmp_path):
    made, samples = fitted(kind, tmp_path)
    time, side = KINDS[kind][2:]
    assert not any(parameter.requires_grad for parameter in made.parameters())
    latent = made.encode(samples)
    assert tuple(latent.shape[1:]) == made.latent_shape(samples.shape[1:]) == (3, 2, 1, 2)
    assert made.sample_shape((3, 2, 1, 2)) == tuple(samples.shape[1:])
    deviation = latent.transpose(0, 1).flatten(1).std(1, correction=0)
    assert torch.allclose(deviation, torch.full((3,), 0.5), rtol=1e-3)
    decoded = made.decode(latent)
    assert decoded.shape == samples.shape
    assert decoded.abs().max() <= 1
    drawn = [made.encode(samples, torch.Generator().manual_seed(3)) for _ in range(2)]
    assert torch.equal(*drawn)
    assert not torch.allclose(drawn[0], latent)
    mask = torch.zeros(1, 1, 1 + time, side, 2 * side)
    mask[:, :, 0, :, :side] = 1
    assert made.latent_mask(mask).flatten().tolist() == [1, 0, 0, 0]


def test_a_picture_is_a_clip_of_one_frame_and_the_first_latent_frame_is_its_own(kind, tmp_path):
    made, samples = fitted(kind, tmp_path)
    alone = made.encode(samples[:, :, :1])
    assert alone.shape[2] == 1
    torch.testing.assert_close(alone, made.encode(samples)[:, :, :1], rtol=1e-3, atol=1e-4)
    assert made.decode(alone).shape[2] == 1


def test_once_fitted_the_weights_file_is_not_needed(kind, tmp_path):
    made, samples = fitted(kind, tmp_path)
    make, options = KINDS[kind][:2]
    again = make(weights="elsewhere.safetensors", latent_channels=3, options=options, tiled=True)
    with pytest.raises(ValueError, match="never fitted"):
        again.encode(samples)
    with pytest.raises(ValueError, match=r"weights=elsewhere.safetensors is not a file"):
        again.fit([samples])
    again.load_state_dict(made.state_dict())
    assert torch.equal(again.train().encode(samples), made.encode(samples))


def test_lengths_and_options_that_do_not_fit_are_named(kind):
    make, options, time, side = KINDS[kind]
    made = make(latent_channels=3, options=options)
    lengths = rf"{time} frames of .* needs 1 \+ {time} × k frames \(1, {1 + time}\)"
    for shape, expected in (((3, time, side, side), lengths), ((3, 1, side + 1, side), f"multiples of {side}")):
        with pytest.raises(ValueError, match=expected):
            made.latent_shape(shape)
    with pytest.raises(ValueError, match=r"clips \(batch, 3, frames, height, width\)"):
        made._code(torch.zeros(1, 1, 1, side, side))
    with pytest.raises(ValueError, match=r"options: AutoencoderKL.* does not take them"):
        make(options={"no_such_key": 1})
    with pytest.raises(ValueError, match=r"options must leave .* to the keys beside it"):
        make(options={"z_dim": 4, "latent_channels": 4})


@pytest.mark.parametrize("make", [WanAutoencoder, LTXVideoAutoencoder])
def test_a_missing_package_is_named_with_what_installs_it(make, monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(ValueError, match=rf"{make.__name__} needs AutoencoderKL.*scm-media\[diffusers\]"):
        make()

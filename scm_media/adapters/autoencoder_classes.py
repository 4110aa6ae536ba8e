"""The autoencoder classes of diffusers: what each codes, and its pipelines' shift and scale of its latents."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from scm_media.adapters.latent_grid import LatentGrid

AUTOENCODERS: dict[str, AutoencoderClass] = {}
"""The autoencoder classes by their names."""


def _decode(network: Any, code: Tensor) -> Tensor:
    made: Tensor = network.decode(code, return_dict=False)[0]
    return made


def _tile(network: Any) -> None:
    network.enable_tiling()


@dataclass(frozen=True)
class AutoencoderClass:
    """Describes an autoencoder class; making one registers it.

    name: the name of the class in diffusers. grid: returns the shapes that a network codes. scaling: returns the shift
    and the scale of a network's latents, (code − shift) · scale, as numbers or as tensors ``(c,)``. decode: returns
    samples for codes. tile: makes a network code what is larger than a tile in tiles; AttributeError or
    NotImplementedError for networks that cannot.
    """

    name: str
    grid: Callable[[Any], LatentGrid]
    scaling: Callable[[Any], tuple[float | Tensor, float | Tensor]]
    decode: Callable[[Any, Tensor], Tensor] = _decode
    tile: Callable[[Any], None] = _tile

    def __post_init__(self) -> None:
        AUTOENCODERS[self.name] = self


def _scaled(network: Any) -> tuple[float, float]:
    return 0.0, network.config.scaling_factor


def _shifted(network: Any) -> tuple[float | Tensor, float | Tensor]:
    """Returns the channels' statistics where there are some, as Stable Diffusion XL has it, else one shift as FLUX."""
    config = network.config
    mean, std = config.get("latents_mean"), config.get("latents_std")
    if mean is not None and std is not None:
        return torch.tensor(mean), config.scaling_factor / torch.tensor(std)
    return config.get("shift_factor") or 0.0, config.scaling_factor


def _by_config(network: Any) -> tuple[Tensor, Tensor]:
    return torch.tensor(network.config.latents_mean), 1 / torch.tensor(network.config.latents_std)


def _by_buffers(network: Any) -> tuple[Tensor, Tensor]:
    return network.latents_mean.float(), network.config.scaling_factor / network.latents_std.float()


def _unscaled(network: Any) -> tuple[float, float]:
    return 0.0, 1.0


def _picture(network: Any, stride: int) -> LatentGrid:
    config = network.config
    return LatentGrid(type(network).__name__, config.in_channels, config.latent_channels, (stride, stride))


def _kl(network: Any) -> LatentGrid:
    return _picture(network, 2 ** (len(network.config.block_out_channels) - 1))


def _dc(network: Any) -> LatentGrid:
    return _picture(network, network.spatial_compression_ratio)


def _tiny(network: Any) -> LatentGrid:
    return _picture(network, 2 ** (len(network.config.num_encoder_blocks) - 1))


def _oobleck(network: Any) -> LatentGrid:
    config = network.config
    latent_channels, hop = config.decoder_input_channels, int(network.hop_length)
    return LatentGrid(type(network).__name__, config.audio_channels, latent_channels, (hop,))


def _wan(network: Any) -> LatentGrid:
    config = network.config
    side, frames = int(config.scale_factor_spatial or 8), int(config.scale_factor_temporal or 4)
    channels = config.in_channels // (config.patch_size or 1) ** 2  # Wan 2.2 folds blocks of pixels into channels
    return LatentGrid(type(network).__name__, channels, config.z_dim, (frames, side, side))


def _ltx(network: Any) -> LatentGrid:
    config, side = network.config, int(network.spatial_compression_ratio)
    strides = (int(network.temporal_compression_ratio), side, side)
    return LatentGrid(type(network).__name__, config.in_channels, config.latent_channels, strides)


def _cogvideox(network: Any) -> LatentGrid:
    """Returns a grid of 1 + 2k latent frames: an even number of them decodes to more frames than were encoded."""
    config = network.config
    side = 2 ** (len(config.block_out_channels) - 1)
    strides = (int(config.temporal_compression_ratio), side, side)
    return LatentGrid(type(network).__name__, config.in_channels, config.latent_channels, strides, group=2)


def _decode_at_no_noise(network: Any, code: Tensor) -> Tensor:
    """Returns samples of a decoder that may take the time of its codes: 0, as its pipelines have it."""
    time = code.new_zeros(len(code)) if network.config.timestep_conditioning else None
    made: Tensor = network.decode(code, time, return_dict=False)[0]
    return made


def _tile_pictures(network: Any) -> None:
    """Enables tiles; NotImplementedError where diffusers' code for tiles has other numbers than the network."""
    config = network.config
    found = config.latent_channels, config.out_channels, 2 ** (len(config.num_encoder_blocks) - 1)
    if found != (4, 3, 8):
        raise NotImplementedError("tiles need 4 latent channels, 3 channels and 8 pixels for a latent")
    network.enable_tiling()


def _tile_waveforms(network: Any) -> None:
    """Enables tiles of whole hops: with diffusers' own lengths, latents of long sounds are shifted or lost."""
    network.enable_tiling()
    hop = int(network.hop_length)
    network.tile_sample_overlap -= network.tile_sample_overlap % hop
    network.tile_sample_min_length -= network.tile_sample_min_length % hop


KL = AutoencoderClass("AutoencoderKL", _kl, _shifted)
DC = AutoencoderClass("AutoencoderDC", _dc, _scaled)
TINY = AutoencoderClass("AutoencoderTiny", _tiny, _shifted, tile=_tile_pictures)
OOBLECK = AutoencoderClass("AutoencoderOobleck", _oobleck, _unscaled, tile=_tile_waveforms)
WAN = AutoencoderClass("AutoencoderKLWan", _wan, _by_config)
LTX = AutoencoderClass("AutoencoderKLLTXVideo", _ltx, _by_buffers, decode=_decode_at_no_noise)
# invert_scale_latents of CogVideoX 1.5 is about the picture that a clip begins with, not about the latents themselves.
COGVIDEOX = AutoencoderClass("AutoencoderKLCogVideoX", _cogvideox, _scaled)

"""Video autoencoders of diffusers, where a user has their weights: those of Wan and of LTX-Video."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from scm_media.nn.channel_scale import ChannelScale
from scm_media.nn.kl_autoencoder import all_within
from scm_media.nn.pretrained import PretrainedAutoencoder
from scm_media.parts import part


class _DiffusersVideo(PretrainedAutoencoder):
    """Latents ``(B, c, 1 + k, H / p, W / p)`` of videos ``(B, C, 1 + f · k, H, W)`` by a class of diffusers.

    name: of the class. options: its keyword arguments besides channels and latent_channels, as they stand in the
    ``config.json`` beside the weights; its own values where one is not given. tiled: whether frames larger than a
    tile are coded in tiles that overlap, which bounds memory and changes what comes out a little.
    """

    def __init__(
        self,
        name: str,
        weights: str | None,
        channels: int,
        latent_channels: int,
        keys: Mapping[str, Any],
        options: Mapping[str, Any] | None,
        tiled: bool,
        sigma_data: float,
    ) -> None:
        try:
            import diffusers

            kind = getattr(diffusers, name)
        except (ImportError, AttributeError) as error:
            raise ValueError(
                f"{type(self).__name__} needs {name} of the package diffusers ({error}): "
                "pip install -U 'scm-media[diffusers]'"
            ) from error
        if twice := sorted(set(keys) & set(options or {})):
            raise ValueError(f"autoencoder.network.options must leave {', '.join(twice)} to the keys beside it")
        try:
            network = kind(**{**keys, **(options or {})})
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"autoencoder.network.options: {name} of diffusers does not take them ({error})"
            ) from error
        if tiled:
            network.enable_tiling()
        what = f"latent channel {{}} of {latent_channels}"
        remedy = "check the data, or that autoencoder.network.weights are of this network"
        super().__init__(network, weights, ChannelScale(latent_channels, sigma_data, what, remedy))
        self.channels, self.latent_channels = channels, latent_channels
        self.strides = self._strides(network)

    def latent_shape(self, sample_shape: Sequence[int]) -> tuple[int, ...]:
        """``(c, 1 + k, H / p, W / p)``; ValueError where a clip is of another length or size."""
        frames, *sides = sample_shape[1:]
        step, *others = self.strides
        if frames < 1 or (frames - 1) % step or any(side % other for side, other in zip(sides, others, strict=True)):
            below = 1 + max(0, frames - 1) // step * step
            raise ValueError(
                f"clips of {frames} frames of {'×'.join(map(str, sides))} cannot be encoded: the autoencoder needs 1 + "
                f"{step} × k frames ({below}, {below + step}) and sides in multiples of {others[0]}; set "
                "modality.num_frames and modality.size"
            )
        return (self.latent_channels, 1 + (frames - 1) // step, *(side // others[0] for side in sides))

    def sample_shape(self, latent_shape: Sequence[int]) -> tuple[int, ...]:
        """``(C, 1 + f · k, H, W)``."""
        frames, *sides = latent_shape[1:]
        return (self.channels, 1 + (frames - 1) * self.strides[0], *(side * self.strides[1] for side in sides))

    def latent_mask(self, mask: Tensor) -> Tensor:
        """``(B, 1, 1 + k, H / p, W / p)``: one where all that a latent place stands for is; the first frame alone."""
        self.latent_shape(mask.shape[1:])
        first = all_within(mask[:, :, :1], (1, *self.strides[1:]))
        return torch.cat([first, all_within(mask[:, :, 1:], self.strides)], 2)

    def _strides(self, network: Any) -> tuple[int, int, int]:
        """How many frames, and pixels along a side, a latent place stands for."""
        raise NotImplementedError

    def _code(self, sample: Tensor) -> tuple[Tensor, Tensor]:
        if sample.ndim != 5 or sample.shape[1] != self.channels:
            raise ValueError(
                f"the autoencoder takes clips (batch, {self.channels}, frames, height, width), got a tensor of shape "
                f"{tuple(sample.shape)}: check the modality against autoencoder.network"
            )
        self.latent_shape(sample.shape[1:])
        posterior: Any = self.network.encode(sample.float()).latent_dist
        return posterior.mean, posterior.std

    def _synthesize(self, code: Tensor) -> Tensor:
        return self.network.decode(code).sample


@part("autoencoder")
class WanAutoencoder(_DiffusersVideo):
    """The autoencoder of Wan, diffusers' ``AutoencoderKLWan``: 4 frames a latent frame, 8 pixels (2.2: 16) a side.

    weights: the safetensors file of its folder (``vae/diffusion_pytorch_model.safetensors``). latent_channels: 16, of
    the 2.2 model for 720p 48. options: see there; the values of Wan 2.1 where one is not given. It goes from one
    latent frame to the next by itself, so that its memory does not grow with length. Raises ValueError where diffusers
    is not installed, or has none.
    """

    def __init__(
        self,
        weights: str | None = None,
        channels: int = 3,
        latent_channels: int = 16,
        options: Mapping[str, Any] | None = None,
        tiled: bool = False,
        sigma_data: float = 0.5,
    ) -> None:
        keys = {"z_dim": latent_channels}
        super().__init__("AutoencoderKLWan", weights, channels, latent_channels, keys, options, tiled, sigma_data)

    def _strides(self, network: Any) -> tuple[int, int, int]:
        side = int(network.config.scale_factor_spatial or 8)
        return int(network.config.scale_factor_temporal or 4), side, side


@part("autoencoder")
class LTXVideoAutoencoder(_DiffusersVideo):
    """The autoencoder of LTX-Video, diffusers' ``AutoencoderKLLTXVideo``: 8 frames a latent frame, 32 pixels a side.

    weights, options: as of ``WanAutoencoder``; those of LTX-Video 0.9.0 where one is not given. Where its decoder
    takes a time (``timestep_conditioning``) it is 0, as diffusers has it. A decoder that is not causal
    (``decoder_causal``, as published) looks ahead. Raises ValueError where diffusers is not installed, or has none.
    """

    def __init__(
        self,
        weights: str | None = None,
        channels: int = 3,
        latent_channels: int = 128,
        options: Mapping[str, Any] | None = None,
        tiled: bool = False,
        sigma_data: float = 0.5,
    ) -> None:
        keys = {"in_channels": channels, "out_channels": channels, "latent_channels": latent_channels}
        super().__init__("AutoencoderKLLTXVideo", weights, channels, latent_channels, keys, options, tiled, sigma_data)

    def _strides(self, network: Any) -> tuple[int, int, int]:
        side = int(network.spatial_compression_ratio)
        return int(network.temporal_compression_ratio), side, side

    def _synthesize(self, code: Tensor) -> Tensor:
        time = code.new_zeros(len(code)) if self.network.config.timestep_conditioning else None
        return self.network.decode(code, time).sample

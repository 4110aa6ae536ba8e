"""Wraps video autoencoders of diffusers whose weights a user has: those of Wan and of LTX-Video."""

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
    """Codes videos ``(B, C, 1 + f · k, H, W)`` as ``(B, c, 1 + k, H / p, W / p)`` by a class of diffusers.

    weights: a safetensors file, such as ``vae/diffusion_pytorch_model.safetensors``. latent_channels: None for those of
    the published model. options: keyword arguments of the class besides channels and latent_channels, as in the
    ``config.json`` beside the weights; the class has defaults for them. tiled: whether frames larger than a tile are
    coded in overlapping tiles, which bounds memory and changes the result a little. Raises ValueError if diffusers is
    not installed or has no such class.
    """

    class_name: str
    published_channels: int

    def __init__(
        self,
        weights: str | None = None,
        channels: int = 3,
        latent_channels: int | None = None,
        options: Mapping[str, Any] | None = None,
        tiled: bool = False,
        sigma_data: float = 0.5,
    ) -> None:
        name, latent_channels = self.class_name, latent_channels or self.published_channels
        keys = self._keys(channels, latent_channels)
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
        channel_name = f"latent channel {{}} of {latent_channels}"
        remedy = "check the data, or that autoencoder.network.weights are of this network"
        super().__init__(network, weights, ChannelScale(latent_channels, sigma_data, channel_name, remedy))
        self.channels, self.latent_channels = channels, latent_channels
        self.strides = self._strides(network)

    def latent_shape(self, sample_shape: Sequence[int]) -> tuple[int, ...]:
        """Returns ``(c, 1 + k, H / p, W / p)``; raises ValueError for clips that cannot be encoded."""
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
        """Returns ``(C, 1 + f · k, H, W)``."""
        frames, *sides = latent_shape[1:]
        return (self.channels, 1 + (frames - 1) * self.strides[0], *(side * self.strides[1] for side in sides))

    def latent_mask(self, mask: Tensor) -> Tensor:
        """Returns ``(B, 1, 1 + k, H / p, W / p)``: one where all pixels of a latent position are one."""
        self.latent_shape(mask.shape[1:])
        first = all_within(mask[:, :, :1], (1, *self.strides[1:]))
        return torch.cat([first, all_within(mask[:, :, 1:], self.strides)], 2)

    def _keys(self, channels: int, latent_channels: int) -> dict[str, int]:
        """Returns the keyword arguments of diffusers' class that give these channels."""
        raise NotImplementedError

    def _strides(self, network: Any) -> tuple[int, int, int]:
        """Returns the frames, and the pixels along both sides, of one latent position."""
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
    """Wraps Wan's autoencoder, diffusers' ``AutoencoderKLWan``: 4 frames a latent frame, 8 pixels (2.2: 16) a side.

    latent_channels: 16; the 2.2 model for 720p has 48. Defaults of options are those of Wan 2.1. The network codes one
    latent frame after the other, so its memory does not grow with a clip's length. The other keys, and errors, are
    those of its base class.
    """

    class_name, published_channels = "AutoencoderKLWan", 16

    def _keys(self, channels: int, latent_channels: int) -> dict[str, int]:
        return {"z_dim": latent_channels}

    def _strides(self, network: Any) -> tuple[int, int, int]:
        side = int(network.config.scale_factor_spatial or 8)
        return int(network.config.scale_factor_temporal or 4), side, side


@part("autoencoder")
class LTXVideoAutoencoder(_DiffusersVideo):
    """Wraps LTX-Video's autoencoder, diffusers' ``AutoencoderKLLTXVideo``: 8 frames a latent frame, 32 pixels a side.

    latent_channels: 128. Defaults of options are those of LTX-Video 0.9.0. A decoder that takes a time
    (``timestep_conditioning``) gets 0, as in diffusers. A decoder that is not causal (``decoder_causal``, as published)
    depends on later frames. The other keys, and errors, are those of its base class.
    """

    class_name, published_channels = "AutoencoderKLLTXVideo", 128

    def _keys(self, channels: int, latent_channels: int) -> dict[str, int]:
        return {"in_channels": channels, "out_channels": channels, "latent_channels": latent_channels}

    def _strides(self, network: Any) -> tuple[int, int, int]:
        side = int(network.spatial_compression_ratio)
        return int(network.temporal_compression_ratio), side, side

    def _synthesize(self, code: Tensor) -> Tensor:
        time = code.new_zeros(len(code)) if self.network.config.timestep_conditioning else None
        return self.network.decode(code, time).sample

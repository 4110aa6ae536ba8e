"""Autoencoders of images: normalised pixels, and a convolutional network with a Gaussian posterior."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from scm_media.nn.channel_scale import ChannelScale
from scm_media.nn.kl_autoencoder import KLAutoencoder
from scm_media.parts import part


@part("autoencoder")
class PixelAutoencoder(ChannelScale):
    """Shifts and scales pixels channel by channel, so that latents have mean 0 and standard deviation ``sigma_data``.

    ``fit`` measures mean and standard deviation of the data; before that, or before weights are loaded, ``encode`` and
    ``decode`` raise ValueError.
    """

    def __init__(self, channels: int, sigma_data: float = 0.5) -> None:
        super().__init__(
            channels,
            sigma_data,
            channel_name="channel {} of the samples",
            remedy="check the data, or modality.channels",
        )

    def encode(self, sample: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Returns latents ``(B, C, *S)`` of standard deviation sigma_data; the generator is not used."""
        return self.normalize(sample)

    def decode(self, latent: Tensor) -> Tensor:
        """Returns samples ``(B, C, *S)``, clipped to [-1, 1]."""
        return self.denormalize(latent).clamp(-1, 1)

    def latent_shape(self, sample_shape: Sequence[int]) -> tuple[int, ...]:
        """Returns the same shape, ``(C, *S)``."""
        return tuple(sample_shape)

    def sample_shape(self, latent_shape: Sequence[int]) -> tuple[int, ...]:
        """Returns the same shape, ``(C, *S)``."""
        return tuple(latent_shape)

    def latent_mask(self, mask: Tensor) -> Tensor:
        """Returns the same mask, ``(B, 1, *S)``."""
        return mask


@part("autoencoder")
class ImageAutoencoder(KLAutoencoder):
    """A convolutional autoencoder of pictures, whose latents are ``factor`` times smaller along each side.

    channels: those of the pictures. factor: a power of two, usually 4 or 8. finest: pixels along a side of one position
    of the finest level: 1 for a level at full resolution, 2 for several times the speed. width: channels of the finest
    level; the next has twice, the others have four times as many. depth: residual blocks of each level.
    linear_residual: the network adds to the principal components of blocks (``KLAutoencoder``).
    Raises ValueError for factors that are not powers of two.
    """

    def __init__(
        self,
        channels: int,
        factor: int = 8,
        latent_channels: int = 4,
        width: int = 64,
        depth: int = 2,
        finest: int = 1,
        sigma_data: float = 0.5,
        linear_residual: bool = False,
    ) -> None:
        for name, value in (("factor", factor), ("finest", finest)):
            if value < 1 or value & (value - 1):
                raise ValueError(f"autoencoder.network.{name} must be a power of two, got {value}")
        if factor < finest:
            raise ValueError(f"autoencoder.network.factor {factor} must be no less than finest {finest}")
        num_levels = (factor // finest).bit_length()
        super().__init__(
            channels,
            latent_channels,
            rank=2,
            strides=[finest] + [2] * (num_levels - 1),
            widths=[width * min(2**level, 4) for level in range(num_levels)],
            depth=depth,
            sigma_data=sigma_data,
            linear_residual=linear_residual,
        )

"""The autoencoders of images: pixels as they are, normalised, and a convolutional one with a Gaussian posterior."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from scm_media.nn.channel_scale import ChannelScale
from scm_media.nn.kl_autoencoder import KLAutoencoder
from scm_media.parts import part


@part("autoencoder")
class PixelAutoencoder(ChannelScale):
    """Pixels shifted and scaled channel by channel, so that latents have mean 0 and deviation ``sigma_data``.

    ``fit`` measures mean and deviation of the data; before that, or before weights are loaded, ``encode`` and
    ``decode`` refuse (ValueError).
    """

    def __init__(self, channels: int, sigma_data: float = 0.5) -> None:
        super().__init__(
            channels,
            sigma_data,
            what="channel {} of the samples",
            remedy="check the data, or modality.channels",
        )

    def encode(self, sample: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Latents ``(B, C, *S)`` of deviation sigma_data; nothing is drawn, so the generator is not used."""
        return self.normalize(sample)

    def decode(self, latent: Tensor) -> Tensor:
        """Samples ``(B, C, *S)``, clipped to [-1, 1]."""
        return self.denormalize(latent).clamp(-1, 1)

    def latent_shape(self, sample_shape: Sequence[int]) -> tuple[int, ...]:
        """``(C, *S)``: the same."""
        return tuple(sample_shape)

    def sample_shape(self, latent_shape: Sequence[int]) -> tuple[int, ...]:
        """``(C, *S)``: the same."""
        return tuple(latent_shape)

    def latent_mask(self, mask: Tensor) -> Tensor:
        """``(B, 1, *S)``: the same."""
        return mask


@part("autoencoder")
class ImageAutoencoder(KLAutoencoder):
    """A convolutional autoencoder of pictures, whose latents have ``factor`` times fewer places along each side.

    channels: of the pictures. factor: a power of two, 4 and 8 are usual. finest: the pixels along a side that one
    place of the finest level stands for, 1 for a level at full resolution, 2 for several times the speed.
    width: channels of the finest level; the next have twice, the others four times as many.
    depth: residual blocks of each level. Raises ValueError for factors that are no powers of two.
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
        )

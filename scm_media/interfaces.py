"""The protocols of backbones, autoencoders and feature extractors.

Shapes are written ``(B, C, *S)`` for samples (pixels, waveforms, frames) and ``(B, c, *s)`` for latents.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from scm_media.conditioning import Conditioning


class Backbone(Protocol):
    """The network F of the flow: unit-variance input and output, always one tensor back.

    A backbone may have an attribute ``accepts_dual``, which says whether it also maps pairs of a value and its tangent
    (``scm_media.nn.dual.DualTensor``) to a pair. ``value_and_tangent`` finds out where it has none.
    """

    def __call__(self, u: Tensor, t: Tensor, cond: Conditioning) -> Tensor:
        """F(u, t) ``(B, c, *s)`` for u = x_t / sigma_data ``(B, c, *s)`` and t ``(B,)`` in radians."""
        ...


class Autoencoder(Protocol):
    """Samples to latents and back; frozen while a backbone trains.

    It may also offer ``decode_in_chunks(latent)``, an iterator of what ``decode`` gives, one stretch along the first
    axis of S after the other, so that the memory of decoding does not grow along it.
    """

    def encode(self, sample: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Latents ``(B, c, *s)`` of deviation sigma_data per channel, for samples ``(B, C, *S)``."""
        ...

    def decode(self, latent: Tensor) -> Tensor:
        """Samples ``(B, C, *S)`` in [-1, 1] for latents ``(B, c, *s)``."""
        ...

    def latent_shape(self, sample_shape: Sequence[int]) -> tuple[int, ...]:
        """``(c, *s)`` of the latent of a sample of shape ``(C, *S)``."""
        ...

    def sample_shape(self, latent_shape: Sequence[int]) -> tuple[int, ...]:
        """``(C, *S)`` of the sample that a latent of shape ``(c, *s)`` decodes to."""
        ...

    def latent_mask(self, mask: Tensor) -> Tensor:
        """``(B, 1, *s)``: one where a latent place stands for valid places of a mask ``(B, 1, *S)`` alone."""
        ...


class FeatureExtractor(Protocol):
    """A feature network: what Fréchet distances are measured in."""

    def features(self, sample: Tensor) -> Tensor:
        """Features ``(B, d)`` of samples ``(B, C, *S)`` in [-1, 1]."""
        ...

    def logits(self, sample: Tensor) -> Mapping[str, Tensor]:
        """Label name to class scores ``(B, num_classes)``: what agreement with the labels is measured by."""
        ...

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
    """The network F of the flow, with input and output of unit variance.

    An attribute ``accepts_dual`` that is true says that it also maps a ``scm_media.nn.dual.DualTensor`` to another one,
    as layers of ``scm_media.nn`` do. Any other backbone gets tensors that carry a tangent (``scm_media.dispatch``).
    """

    def __call__(self, u: Tensor, t: Tensor, cond: Conditioning) -> Tensor:
        """Returns F(u, t) ``(B, c, *s)`` for u = x_t / sigma_data ``(B, c, *s)`` and t ``(B,)`` in radians."""
        ...


class Autoencoder(Protocol):
    """A map from samples to latents and back, which is frozen while a backbone trains.

    An optional method ``decode_in_chunks(latent)`` yields what ``decode`` returns in chunks along the first axis of S,
    so that the memory of decoding does not grow along it.
    """

    def encode(self, sample: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Returns latents ``(B, c, *s)`` with a standard deviation of sigma_data in each channel."""
        ...

    def decode(self, latent: Tensor) -> Tensor:
        """Returns samples ``(B, C, *S)`` in [-1, 1] for latents ``(B, c, *s)``."""
        ...

    def latent_shape(self, sample_shape: Sequence[int]) -> tuple[int, ...]:
        """Returns the shape ``(c, *s)`` of the latent of a sample ``(C, *S)``."""
        ...

    def sample_shape(self, latent_shape: Sequence[int]) -> tuple[int, ...]:
        """Returns the shape ``(C, *S)`` of the sample that a latent ``(c, *s)`` decodes to."""
        ...

    def latent_mask(self, mask: Tensor) -> Tensor:
        """Returns ``(B, 1, *s)``, one where a mask ``(B, 1, *S)`` is one in all that a latent position stands for."""
        ...


class FeatureExtractor(Protocol):
    """A network whose features Fréchet distances are measured in."""

    def features(self, sample: Tensor) -> Tensor:
        """Returns features ``(B, d)`` of samples ``(B, C, *S)`` in [-1, 1]."""
        ...

    def logits(self, sample: Tensor) -> Mapping[str, Tensor]:
        """Returns the class scores ``(B, num_classes)`` of each label by name, which accuracy is measured by."""
        ...

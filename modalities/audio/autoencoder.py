"""Compresses the spectrograms of a front end by a convolutional autoencoder."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from modalities.audio.fourier import check_waveform
from modalities.audio.levels import limit_peaks
from scm_media.nn.kl_autoencoder import KLAutoencoder
from scm_media.parts import part


@part("autoencoder", front="autoencoder")
class SpectralAutoencoder(nn.Module):
    """Maps waveforms to Gaussians over latents ``(B, latent_channels, F / f, K / k)``, by way of spectrograms.

    front: an autoencoder of spectrograms ``(B, c, F, K)`` with ``latent_channels``, ``frames`` and an unclipped inverse
    ``waveform``: ``ComplexSpectrogram``, or ``VocodedMel``, whose vocoder is then trained with the rest.
    strides: of each level, along frequency and time; their products are f and k, and T must be a multiple of k hops.
    widths, depth: as in ``KLAutoencoder``.

    Before training, ``prepare`` measures the front end's scale; after it, ``fit`` measures that of the latents.
    ``posterior`` and ``synthesize``, which training calls, take and return waveforms.
    """

    rank = 1
    """Number of axes of a sample besides batch and channels."""

    def __init__(
        self,
        front: Any,
        latent_channels: int = 16,
        strides: Sequence[int | Sequence[int]] = ((2, 1), (2, 2), (2, 2)),
        widths: Sequence[int] = (32, 64, 128),
        depth: int = 1,
        sigma_data: float = 0.5,
    ) -> None:
        super().__init__()
        self.front = front
        self.channels: int = front.channels
        self.inner = KLAutoencoder(front.latent_channels, latent_channels, 2, strides, widths, depth, sigma_data)

    def prepare(self, samples: Iterable[Tensor]) -> None:
        """Measures the scale of the front end's spectrograms over batches ``(B, channels, T)``."""
        self.front.fit(samples)

    def fit(self, samples: Iterable[Tensor]) -> None:
        """Measures the scale of the latents, from the posterior means of batches ``(B, channels, T)``.

        Raises ValueError before ``prepare``, when there is nothing to measure, and for a latent channel that never
        changes.
        """
        device = next(self.parameters()).device
        with torch.no_grad():
            self.inner.scale.fit(self.posterior(sample.to(device))[0] for sample in samples)

    def posterior(self, sample: Tensor) -> tuple[Tensor, Tensor]:
        """Returns mean and logarithm of the variance ``(B, c, F / f, K / k)`` of the codes of waveforms."""
        self._check(sample)
        return self.inner.posterior(self.front.encode(sample))

    def synthesize(self, code: Tensor) -> Tensor:
        """Returns waveforms ``(B, channels, T)``, not clipped, for codes."""
        return self.front.waveform(self.inner.synthesize(code))

    def encode(self, sample: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Returns latents of standard deviation sigma_data: posterior means, or samples drawn with the generator."""
        self._check(sample)
        return self.inner.encode(self.front.encode(sample), generator)

    def decode(self, latent: Tensor) -> Tensor:
        """Returns waveforms ``(B, channels, T)`` in [-1, 1], with the level lowered where the peak is higher."""
        return limit_peaks(self.synthesize(self.inner.scale.denormalize(latent)))

    def latent_shape(self, sample_shape: Sequence[int]) -> tuple[int, ...]:
        """Returns ``(c, F / f, K / k)``. Raises ValueError where T is no multiple of k hops, or f does not divide F."""
        multiple = self.inner.strides[1] * self.front.frames.hop
        if sample_shape[-1] % multiple:
            raise ValueError(
                f"waveforms of {sample_shape[-1]} samples cannot be encoded: the autoencoder needs a multiple of "
                f"{multiple} (its hop times its strides along time); set modality.multiple={multiple}"
            )
        return self.inner.latent_shape(self.front.latent_shape(sample_shape))

    def sample_shape(self, latent_shape: Sequence[int]) -> tuple[int, ...]:
        """Returns ``(channels, T)``."""
        return self.front.sample_shape(self.inner.sample_shape(latent_shape))

    def latent_mask(self, mask: Tensor) -> Tensor:
        """Returns ``(B, 1, F / f, K / k)``: one where all samples ``(B, 1, T)`` of a latent frame's hops are one."""
        self.latent_shape(mask.shape[1:])
        return self.inner.latent_mask(self.front.latent_mask(mask))

    def _check(self, sample: Tensor) -> None:
        check_waveform(sample, self.channels)
        self.latent_shape(sample.shape[1:])

"""Pixel space as an autoencoder: the latent is the picture, normalised to the flow's deviation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn


class PixelAutoencoder(nn.Module):
    """Pixels shifted and scaled channel by channel, so that latents have mean 0 and deviation ``sigma_data``.

    ``fit`` measures mean and deviation of the data; before that, or before weights are loaded, ``encode`` and
    ``decode`` refuse (ValueError).
    """

    mean: Tensor
    std: Tensor
    trained: Tensor

    def __init__(self, channels: int, sigma_data: float = 0.5) -> None:
        super().__init__()
        if channels < 1:
            raise ValueError(f"channels of the autoencoder must be at least 1, got {channels}")
        if not sigma_data > 0:
            raise ValueError(f"sigma_data of the autoencoder must be positive, got {sigma_data}")
        self.channels = channels
        self.sigma_data = sigma_data
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("std", torch.ones(channels))
        self.register_buffer("trained", torch.zeros((), dtype=torch.bool))
        self._known_trained = False

    def fit(self, samples: Iterable[Tensor]) -> None:
        """Measures mean and deviation of each channel over batches ``(B, C, *S)``, in float64.

        Batches are merged as in Chan, Golub & LeVeque 1979, equations 2.1. Raises ValueError when there is nothing
        to measure, when a value is not finite, and for a channel that never changes.
        """
        count = 0
        mean = torch.zeros(self.channels, dtype=torch.float64)
        squares = torch.zeros(self.channels, dtype=torch.float64)
        for batch in samples:
            self._check(batch)
            values = batch.detach().to("cpu", torch.float64).transpose(0, 1).flatten(1)
            num = values.shape[1]
            if num == 0:
                continue
            batch_mean = values.mean(1)
            shift = batch_mean - mean
            squares += (values - batch_mean[:, None]).square().sum(1) + shift.square() * (count * num / (count + num))
            mean += shift * (num / (count + num))
            count += num
        if count == 0:
            raise ValueError("the autoencoder was given no samples to measure: check data.root and its reject counts")
        std = (squares / count).sqrt()
        for channel, value in enumerate(std.tolist()):
            if not (value > 0 and value < float("inf")):
                raise ValueError(
                    f"channel {channel} of the samples has deviation {value}, expected a positive one: "
                    "check the data, or modality.channels"
                )
        self.mean.copy_(mean)
        self.std.copy_(std)
        self.trained.fill_(True)

    def encode(self, sample: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Latents ``(B, C, *S)`` of deviation sigma_data; nothing is drawn, so the generator is not used."""
        self._check(sample)
        self._require_trained()
        return (sample - self._along(self.mean, sample)) * self._along(self.sigma_data / self.std, sample)

    def decode(self, latent: Tensor) -> Tensor:
        """Samples ``(B, C, *S)``, clipped to [-1, 1]."""
        self._check(latent)
        self._require_trained()
        sample = latent * self._along(self.std / self.sigma_data, latent) + self._along(self.mean, latent)
        return sample.clamp(-1, 1)

    def latent_shape(self, sample_shape: Sequence[int]) -> tuple[int, ...]:
        """``(C, *S)``: the same."""
        return tuple(sample_shape)

    def sample_shape(self, latent_shape: Sequence[int]) -> tuple[int, ...]:
        """``(C, *S)``: the same."""
        return tuple(latent_shape)

    def latent_mask(self, mask: Tensor) -> Tensor:
        """``(B, 1, *S)``: the same."""
        return mask

    def _along(self, statistic: Tensor, like: Tensor) -> Tensor:
        return statistic.to(like.dtype).reshape(-1, *([1] * (like.ndim - 2)))

    def _check(self, tensor: Tensor) -> None:
        if tensor.ndim < 2 or tensor.shape[1] != self.channels:
            raise ValueError(
                f"the autoencoder has {self.channels} channels, got a tensor of shape {tuple(tensor.shape)}: "
                "check modality.channels against autoencoder.network.channels"
            )

    def _require_trained(self) -> None:
        # Asked of the buffer only until it says yes: on an accelerator each question waits for the device.
        if self._known_trained:
            return
        if not bool(self.trained):
            raise ValueError(
                "this autoencoder was never fitted, so that it knows no mean and deviation: "
                "run stage=autoencoder, or load its weights"
            )
        self._known_trained = True

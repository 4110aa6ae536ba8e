"""Scales latents by the mean and standard deviation of each channel, which are measured once and saved as weights."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


class Measured(nn.Module):
    """Holds statistics that ``fit`` measures, and the buffer ``trained``, which is true once it has."""

    trained: Tensor

    def __init__(self) -> None:
        super().__init__()
        self._is_trained = False

    def require_trained(self) -> None:
        """Raises ValueError before ``fit``, or before weights are loaded."""
        # The buffer is read only until it is true: on an accelerator each reading waits for the device.
        if self._is_trained:
            return
        if not bool(self.trained):
            raise ValueError(
                "this autoencoder was never fitted, so its latents have no mean and standard deviation: "
                "run stage=autoencoder, or load its weights"
            )
        self._is_trained = True


class ChannelScale(Measured):
    """Shifts and scales each channel to mean 0 and standard deviation ``sigma_data``, as ``fit`` measured them.

    channel_name: name of a channel in errors, with {} for its number. remedy: advice in errors about constant channels.
    ``normalize`` and ``denormalize`` raise ValueError before ``fit`` or before weights are loaded.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, channels: int, sigma_data: float, channel_name: str, remedy: str) -> None:
        super().__init__()
        if channels < 1:
            raise ValueError(f"channels of the autoencoder must be at least 1, got {channels}")
        if not sigma_data > 0:
            raise ValueError(f"sigma_data of the autoencoder must be positive, got {sigma_data}")
        self.channels = channels
        self.sigma_data = sigma_data
        self.channel_name, self.remedy = channel_name, remedy
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("std", torch.ones(channels))
        self.register_buffer("trained", torch.zeros((), dtype=torch.bool))

    def fit(self, values: Iterable[Tensor]) -> None:
        """Measures mean and standard deviation of each channel over batches ``(B, channels, *S)``, in float64.

        Batches are merged as in Chan, Golub & LeVeque 1979, equation 2.1. Raises ValueError if there are no
        values, if one is not finite, and if a channel is constant.
        """
        count = 0
        mean = torch.zeros(self.channels, dtype=torch.float64)
        squares = torch.zeros(self.channels, dtype=torch.float64)
        for batch in values:
            self.check_channels(batch)
            flat = batch.detach().to("cpu", torch.float64).transpose(0, 1).flatten(1)
            num = flat.shape[1]
            if num == 0:
                continue
            batch_mean = flat.mean(1)
            shift = batch_mean - mean
            squares += (flat - batch_mean[:, None]).square().sum(1) + shift.square() * (count * num / (count + num))
            mean += shift * (num / (count + num))
            count += num
        if count == 0:
            raise ValueError("the autoencoder was given no samples to measure: check data.root and its reject counts")
        std = (squares / count).sqrt()
        for channel, value in enumerate(std.tolist()):
            if not (value > 0 and value < float("inf")):
                raise ValueError(
                    f"{self.channel_name.format(channel)} has standard deviation {value}, expected a positive one: "
                    f"{self.remedy}"
                )
        self.mean.copy_(mean)
        self.std.copy_(std)
        self.trained.fill_(True)

    def normalize(self, values: Tensor) -> Tensor:
        """Returns ``(B, channels, *S)`` with mean 0 and standard deviation sigma_data in each channel."""
        self.check_channels(values)
        self.require_trained()
        return (values - self._broadcast(self.mean, values)) * self._broadcast(self.sigma_data / self.std, values)

    def denormalize(self, latent: Tensor) -> Tensor:
        """Returns the values that ``normalize`` turned into ``latent``."""
        self.check_channels(latent)
        self.require_trained()
        return latent * self._broadcast(self.std / self.sigma_data, latent) + self._broadcast(self.mean, latent)

    def check_channels(self, tensor: Tensor) -> None:
        """Raises ValueError for a tensor with a wrong number of channels."""
        if tensor.ndim < 2 or tensor.shape[1] != self.channels:
            raise ValueError(
                f"the autoencoder has {self.channels} channels, got a tensor of shape {tuple(tensor.shape)}: "
                "check the modality against autoencoder.network"
            )

    def _broadcast(self, statistic: Tensor, like: Tensor) -> Tensor:
        """Returns a number for each channel in a shape that broadcasts against ``like``."""
        return statistic.to(like.dtype).reshape(-1, *([1] * (like.ndim - 2)))

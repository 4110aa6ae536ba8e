"""A convolutional autoencoder with a Gaussian posterior, for samples of one, two or three axes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from scm_media.nn.channel_scale import ChannelScale

CONVOLUTIONS: Mapping[int, Any] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
"""Convolution by the number of axes of a sample."""

_GROUP = 8
_LOG_VARIANCE = (-30.0, 20.0)


def group_norm(width: int) -> nn.GroupNorm:
    """Group norm over groups of eight channels, of all where eight do not divide them."""
    return nn.GroupNorm(width // _GROUP if width % _GROUP == 0 else 1, width)


class _Block(nn.Module):
    """x + conv(act(norm(conv(act(norm(x)))))); the last convolution starts at zero."""

    def __init__(self, width: int, rank: int) -> None:
        super().__init__()
        convolution = CONVOLUTIONS[rank]
        last = convolution(width, width, 3, padding=1)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        first = convolution(width, width, 3, padding=1)
        self.layers = nn.Sequential(group_norm(width), nn.SiLU(), first, group_norm(width), nn.SiLU(), last)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class _Enlarged(nn.Module):
    """A convolution to ``prod(stride)`` times the channels, which are then laid out as places ("sub-pixel").

    All places of one output start with the same weights, so that a fresh layer makes no checkerboard.
    """

    def __init__(self, in_width: int, out_width: int, stride: Sequence[int]) -> None:
        super().__init__()
        self.out_width, self.stride = out_width, tuple(stride)
        places = math.prod(stride)
        self.convolution = CONVOLUTIONS[len(stride)](in_width, out_width * places, 3, padding=1)
        for parameter in (self.convolution.weight, self.convolution.bias):
            parameter.data.copy_(parameter.data[::places].repeat_interleave(places, 0))

    def forward(self, x: Tensor) -> Tensor:
        x = self.convolution(x)
        if math.prod(self.stride) == 1:
            return x
        rank, sizes = len(self.stride), x.shape[2:]
        x = x.reshape(len(x), self.out_width, *self.stride, *sizes)
        axes = itertools.chain.from_iterable((2 + rank + axis, 2 + axis) for axis in range(rank))
        shape = [size * step for size, step in zip(sizes, self.stride, strict=True)]
        return x.permute(0, 1, *axes).reshape(len(x), self.out_width, *shape)


class KLAutoencoder(nn.Module):
    """Samples to Gaussians over latents, and latents back to samples (Kingma & Welling 2013; Rombach et al. 2021).

    channels: of samples ``(B, channels, *S)``. rank: the number of axes of S, 1 to 3.
    strides: of each level, a whole number or one an axis; their product is how much smaller latents are. A first
    stride of 1 gives a level at full resolution, which costs most of the time.
    widths: channels of each level. depth: residual blocks of each level, in encoder and decoder alike.

    ``encode`` gives the posterior's mean without a generator and draws from the posterior with one. Latents are
    normalised by mean and deviation of the posterior means, which ``fit`` measures; ``encode`` and ``decode`` refuse
    (ValueError) before that, or before weights are loaded. ``posterior`` and ``synthesize``, which training is made
    of, work on codes: latents that are not normalised.
    Raises ValueError for strides and widths that do not fit rank or each other.
    """

    def __init__(
        self,
        channels: int,
        latent_channels: int = 4,
        rank: int = 2,
        strides: Sequence[int | Sequence[int]] = (1, 2, 2),
        widths: Sequence[int] = (32, 64, 128),
        depth: int = 1,
        sigma_data: float = 0.5,
    ) -> None:
        super().__init__()
        self.channels, self.latent_channels, self.rank = channels, latent_channels, rank
        levels = _levels(rank, strides, widths)
        self.strides = tuple(math.prod(step) for step in zip(*levels, strict=True))
        self.scale = ChannelScale(
            latent_channels,
            sigma_data,
            what=f"latent channel {{}} of {latent_channels}",
            remedy="it carries nothing: lower autoencoder.loss.kl_weight or autoencoder.network.latent_channels, "
            "or train longer (autoencoder.max_steps)",
        )
        convolution = CONVOLUTIONS[rank]
        down: list[nn.Module] = []
        up: list[nn.Module] = []
        before = channels
        for stride, width in zip(levels, widths, strict=True):
            # Kernel = stride + 2 with one place of padding: exactly size / stride places, each seeing its neighbours.
            down += [convolution(before, width, [step + 2 for step in stride], stride, padding=1)]
            down += [_Block(width, rank) for _ in range(depth)]
            last = [group_norm(width), nn.SiLU()] if not up else []
            up = [*(_Block(width, rank) for _ in range(depth)), *last, _Enlarged(width, before, stride), *up]
            before = width
        down += [group_norm(before), nn.SiLU(), convolution(before, 2 * latent_channels, 3, padding=1)]
        self.encoder = nn.Sequential(*down)
        self.decoder = nn.Sequential(convolution(latent_channels, before, 3, padding=1), *up)

    def posterior(self, sample: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and logarithm of the variance ``(B, c, *s)`` of the codes of samples ``(B, C, *S)``."""
        self._check_sample(sample)
        mean, log_variance = self.encoder(self._laid_out(sample)).chunk(2, 1)
        return mean, log_variance.clamp(*_LOG_VARIANCE)

    def synthesize(self, code: Tensor) -> Tensor:
        """Samples ``(B, C, *S)``, not clipped, for codes ``(B, c, *s)``."""
        return self.decoder(self._laid_out(code))

    def fit(self, samples: Iterable[Tensor]) -> None:
        """Measures what normalises latents: the posterior means of batches ``(B, C, *S)``.

        Raises ValueError when there is nothing to measure, and for a latent channel that never changes.
        """
        device = next(self.parameters()).device
        with torch.no_grad():
            self.scale.fit(self.posterior(sample.to(device))[0] for sample in samples)

    def encode(self, sample: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Latents ``(B, c, *s)`` of deviation sigma_data: the posterior's mean, or a draw from it by the generator."""
        code, log_variance = self.posterior(sample)
        if generator is not None:
            noise = torch.randn(code.shape, generator=generator, device=generator.device, dtype=code.dtype)
            code = code + (log_variance / 2).exp() * noise.to(code.device)
        return self.scale.normalize(code)

    def decode(self, latent: Tensor) -> Tensor:
        """Samples ``(B, C, *S)``, clipped to [-1, 1]."""
        return self.synthesize(self.scale.denormalize(latent)).clamp(-1, 1)

    def latent_shape(self, sample_shape: Sequence[int]) -> tuple[int, ...]:
        """``(c, *s)``: each axis of ``(C, *S)`` by its strides. ValueError where they do not divide it."""
        sizes = tuple(sample_shape[1:])
        if len(sizes) != self.rank or any(size % step for size, step in zip(sizes, self.strides, strict=True)):
            raise ValueError(
                f"samples of size {'×'.join(map(str, sizes))} cannot be encoded: the autoencoder needs {self.rank} "
                f"axes in multiples of {'×'.join(map(str, self.strides))} (autoencoder.network); choose another size"
            )
        return (self.latent_channels, *(size // step for size, step in zip(sizes, self.strides, strict=True)))

    def sample_shape(self, latent_shape: Sequence[int]) -> tuple[int, ...]:
        """``(C, *S)``: each axis of ``(c, *s)`` times its strides."""
        return (self.channels, *(size * step for size, step in zip(latent_shape[1:], self.strides, strict=True)))

    def latent_mask(self, mask: Tensor) -> Tensor:
        """``(B, 1, *s)``: one where all of the places ``(B, 1, *S)`` that a latent place stands for are one."""
        sizes = self.latent_shape(mask.shape[1:])[1:]
        pieces = itertools.chain.from_iterable(zip(sizes, self.strides, strict=True))
        return mask.reshape(len(mask), 1, *pieces).amin(tuple(range(3, 3 + 2 * self.rank, 2)))

    def _laid_out(self, x: Tensor) -> Tensor:
        # Convolutions follow the layout of their input; channels last is a third faster on a CPU.
        return x.contiguous(memory_format=torch.channels_last) if self.rank == 2 else x

    def _check_sample(self, sample: Tensor) -> None:
        if sample.ndim != 2 + self.rank or sample.shape[1] != self.channels:
            raise ValueError(
                f"the autoencoder takes samples of {self.channels} channels and {self.rank} axes, got a tensor of "
                f"shape {tuple(sample.shape)}: check the modality against autoencoder.network"
            )
        self.latent_shape(sample.shape[1:])


def _levels(rank: int, strides: Sequence[int | Sequence[int]], widths: Sequence[int]) -> list[tuple[int, ...]]:
    """The strides of each level, one an axis. Raises ValueError as ``KLAutoencoder``."""
    if rank not in CONVOLUTIONS:
        raise ValueError(f"rank of the autoencoder must be 1, 2 or 3, got {rank}")
    levels = [(step,) * rank if isinstance(step, int) else tuple(step) for step in strides]
    if not levels or any(len(level) != rank or min(level) < 1 for level in levels):
        raise ValueError(
            f"strides of the autoencoder must be whole numbers, or {rank} of them a level, at least 1; got {strides}"
        )
    if len(widths) != len(levels) or min(widths) < 1:
        raise ValueError(f"widths of the autoencoder must be one a level of {len(levels)} strides, got {widths}")
    return levels


def gaussian_kl(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, variance) ‖ N(0, 1)) of each clip ``(B,)``, in nats, averaged over its places and channels."""
    mean, log_variance = mean.float(), log_variance.float()
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).flatten(1).mean(1)


def gradient_distance(difference: Tensor, num_scales: int = 3) -> Tensor:
    """Mean absolute slope of a difference ``(B, C, *S)`` of each clip ``(B,)``, over its axes and several scales.

    Each scale has half the places of the one before, averaged, for as long as every axis has two.
    """
    rank = difference.ndim - 2
    pool = {1: functional.avg_pool1d, 2: functional.avg_pool2d, 3: functional.avg_pool3d}[rank]
    slopes = []
    for _ in range(num_scales):
        if min(difference.shape[2:]) < 2:
            break
        slopes += [difference.diff(dim=2 + axis).abs().flatten(1).mean(1) for axis in range(rank)]
        difference = pool(difference, 2)
    return torch.stack(slopes).mean(0) if slopes else difference.new_zeros(len(difference))

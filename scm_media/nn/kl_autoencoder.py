"""A convolutional autoencoder with a Gaussian posterior, for samples of one, two or three axes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from scm_media.nn.autoencoder_layers import (
    CONVOLUTIONS,
    CausalSequential,
    Convolutions,
    FeatureCache,
    ResidualBlock,
    SubPixelUpsample,
)
from scm_media.nn.block_pca import BlockPCA, LinearResidual
from scm_media.nn.channel_scale import ChannelScale

_LOG_VARIANCE = (-30.0, 20.0)


class KLAutoencoder(nn.Module):
    """Samples to Gaussians over latents, and latents back to samples (Kingma & Welling 2013; Rombach et al. 2021).

    channels: of samples ``(B, channels, *S)``. rank: the number of axes of S, 1 to 3.
    strides: of each level, a whole number or one an axis; their product is how much smaller latents are. A first
    stride of 1 gives a level at full resolution, which costs most of the time.
    widths: channels of each level. depth: residual blocks of each level, in encoder and decoder alike.
    causal: along the first axis, whose first place is coded alone: 1 + stride · k places are 1 + k of the latent, and
    none depends on a later one. Then no more than ``chunk`` latent places of that axis are coded at once outside of
    training, so that the memory for what lies between does not grow along it.
    linear_residual: the principal components of blocks of prod(strides) places go past the network on both ways, so
    that it learns what they leave; ``prepare`` measures them before training (``scm_media.nn.block_pca``).

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
        causal: bool = False,
        chunk: int = 4,
        linear_residual: bool = False,
    ) -> None:
        super().__init__()
        if chunk < 1:
            raise ValueError(f"chunk of the autoencoder must be at least 1 latent place, got {chunk}")
        self.channels, self.latent_channels, self.rank = channels, latent_channels, rank
        self.causal, self.chunk = causal, chunk
        levels = _levels(rank, strides, widths)
        self.strides = tuple(math.prod(step) for step in zip(*levels, strict=True))
        self.scale = ChannelScale(
            latent_channels,
            sigma_data,
            what=f"latent channel {{}} of {latent_channels}",
            remedy="it carries nothing: lower autoencoder.loss.kl_weight or autoencoder.network.latent_channels, "
            "or train longer (autoencoder.max_steps)",
        )
        kind = Convolutions(rank, causal)
        down: list[nn.Module] = []
        up: list[nn.Module] = []
        before = channels
        for stride, width in zip(levels, widths, strict=True):
            down += [kind.convolution(before, width, stride)]
            down += [ResidualBlock(width, kind) for _ in range(depth)]
            last = [kind.norm(width), nn.SiLU()] if not up else []
            up = [
                *(ResidualBlock(width, kind) for _ in range(depth)),
                *last,
                SubPixelUpsample(width, before, stride, kind),
                *up,
            ]
            before = width
        down += [kind.norm(before), nn.SiLU(), kind.convolution(before, 2 * latent_channels)]
        up = [kind.convolution(latent_channels, before), *up]
        self.components: BlockPCA | None = None
        if linear_residual:
            self.components = BlockPCA(channels, latent_channels, self.strides, causal)
            self.encoder: CausalSequential = LinearResidual(down, self.components, encodes=True)
            self.decoder: CausalSequential = LinearResidual(up, self.components, encodes=False)
        else:
            self.encoder, self.decoder = CausalSequential(*down), CausalSequential(*up)

    def prepare(self, samples: Iterable[Tensor]) -> None:
        """Measures the components of batches ``(B, C, *S)``, before training; looks at none without a shortcut."""
        if self.components is not None:
            self.components.fit(samples)

    def posterior(self, sample: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and logarithm of the variance ``(B, c, *s)`` of the codes of samples ``(B, C, *S)``."""
        self._check_sample(sample)
        return _moments(self.encoder(self._laid_out(sample)))

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
        self._check_sample(sample)
        moments = _joined(self._in_chunks(self.encoder, sample, self.strides[0]))
        code, log_variance = _moments(moments)
        if generator is not None:
            noise = torch.randn(code.shape, generator=generator, device=generator.device, dtype=code.dtype)
            code = code + (log_variance / 2).exp() * noise.to(code.device)
        return self.scale.normalize(code)

    def decode(self, latent: Tensor) -> Tensor:
        """Samples ``(B, C, *S)``, clipped to [-1, 1]."""
        return _joined(self.decode_in_chunks(latent))

    def decode_in_chunks(self, latent: Tensor) -> Iterator[Tensor]:
        """What ``decode`` gives, one stretch along the first axis of S after the other; one where it is not causal."""
        for made in self._in_chunks(self.decoder, self.scale.denormalize(latent), 1):
            yield made.clamp(-1, 1)

    def latent_shape(self, sample_shape: Sequence[int]) -> tuple[int, ...]:
        """``(c, *s)``: each axis of ``(C, *S)`` by its strides. ValueError where they do not divide it."""
        sizes, alone = tuple(sample_shape[1:]), self._alone
        if len(sizes) != self.rank or any(
            size < first or (size - first) % step for size, step, first in zip(sizes, self.strides, alone, strict=True)
        ):
            causal = f" (along the first of them 1 more: {self._lengths(sizes)})" if self.causal else ""
            raise ValueError(
                f"samples of size {'×'.join(map(str, sizes))} cannot be encoded: the autoencoder needs {self.rank} "
                f"axes in multiples of {'×'.join(map(str, self.strides))}{causal} (autoencoder.network); choose "
                "another size"
            )
        grid = zip(sizes, self.strides, alone, strict=True)
        return (self.latent_channels, *(first + (size - first) // step for size, step, first in grid))

    def sample_shape(self, latent_shape: Sequence[int]) -> tuple[int, ...]:
        """``(C, *S)``: each axis of ``(c, *s)`` times its strides."""
        grid = zip(latent_shape[1:], self.strides, self._alone, strict=True)
        return (self.channels, *(first + (size - first) * step for size, step, first in grid))

    def latent_mask(self, mask: Tensor) -> Tensor:
        """``(B, 1, *s)``: one where all of the places ``(B, 1, *S)`` that a latent place stands for are one."""
        self.latent_shape(mask.shape[1:])
        if not self.causal:
            return all_within(mask, self.strides)
        first, rest = mask[:, :, :1], mask[:, :, 1:]
        return torch.cat([all_within(first, (1, *self.strides[1:])), all_within(rest, self.strides)], 2)

    @property
    def _alone(self) -> tuple[int, ...]:
        """For each axis how many places at its start are coded alone: one along that of a causal network."""
        return (int(self.causal), *[0] * (self.rank - 1))

    def _lengths(self, sizes: Sequence[int]) -> str:
        """The lengths nearest to the one asked for that a causal network takes."""
        step, size = self.strides[0], sizes[0] if sizes else 1
        below = 1 + max(0, size - 1) // step * step
        return f"{below}, {below + step}"

    def _in_chunks(self, network: CausalSequential, x: Tensor, stride: int) -> Iterator[Tensor]:
        """What a network makes of x, piece by piece along the first axis; stride: how many places are one latent's."""
        if not self.causal:
            yield network(self._laid_out(x))
            return
        memory: FeatureCache = {}
        begin, end = 0, 1 + stride * (self.chunk - 1)
        while begin < x.shape[2]:
            yield network(self._laid_out(x[:, :, begin:end]), memory)
            begin, end = end, end + stride * self.chunk

    def _laid_out(self, x: Tensor) -> Tensor:
        # Convolutions follow the layout of their input; channels last is a third faster on a CPU.
        if self.rank == 2:
            return x.contiguous(memory_format=torch.channels_last)
        return x.contiguous(memory_format=torch.channels_last_3d) if self.rank == 3 and self.causal else x

    def _check_sample(self, sample: Tensor) -> None:
        if sample.ndim != 2 + self.rank or sample.shape[1] != self.channels:
            raise ValueError(
                f"the autoencoder takes samples of {self.channels} channels and {self.rank} axes, got a tensor of "
                f"shape {tuple(sample.shape)}: check the modality against autoencoder.network"
            )
        self.latent_shape(sample.shape[1:])


def _moments(encoded: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and logarithm of the variance, of what an encoder gives."""
    mean, log_variance = encoded.chunk(2, 1)
    return mean, log_variance.clamp(*_LOG_VARIANCE)


def _joined(chunks: Iterable[Tensor]) -> Tensor:
    found = list(chunks)
    return found[0] if len(found) == 1 else torch.cat(found, 2)


def all_within(mask: Tensor, strides: Sequence[int]) -> Tensor:
    """``(B, 1, *s)``: one where all of a block of ``strides`` places is."""
    rank = len(strides)
    chunks = [part for size, step in zip(mask.shape[2:], strides, strict=True) for part in (size // step, step)]
    return mask.reshape(len(mask), 1, *chunks).amin(tuple(range(3, 3 + 2 * rank, 2)))


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

    Each scale has half the places of the one before, averaged; an axis of one place (of a picture as a clip of one
    frame) has no slope.
    """
    pool = {1: functional.avg_pool1d, 2: functional.avg_pool2d, 3: functional.avg_pool3d}[difference.ndim - 2]
    slopes = []
    for _ in range(num_scales):
        axes = [axis for axis in range(2, difference.ndim) if difference.shape[axis] > 1]
        slopes += [difference.diff(dim=axis).abs().flatten(1).mean(1) for axis in axes]
        difference = pool(difference, [min(2, size) for size in difference.shape[2:]])
    return torch.stack(slopes).mean(0) if slopes else difference.new_zeros(len(difference))

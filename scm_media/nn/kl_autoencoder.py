"""A convolutional autoencoder with a Gaussian posterior for samples with one, two or three axes."""

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
    """Encodes samples as Gaussians over latents and decodes latents (Kingma & Welling 2013; Rombach et al. 2021).

    channels: channels of samples ``(B, channels, *S)``. rank: the number of axes of S, 1 to 3.
    strides: a whole number, or one for each axis, for each level; a latent is smaller by their product. A first stride
    of 1 gives a level at full resolution, which takes most of the time.
    widths: channels of each level. depth: residual blocks of each level, in encoder and decoder alike.
    causal: no position along the first axis depends on a later one, and the first is encoded alone: 1 + stride · k
    positions become 1 + k of the latent. At most ``chunk`` latent positions of that axis are computed at once outside
    training, so that the memory for activations does not grow along it.
    linear_residual: the principal components of blocks of prod(strides) positions are added to the output of encoder
    and decoder, which learn the rest; ``prepare`` measures them before training (``scm_media.nn.block_pca``).

    ``encode`` returns the posterior's mean, or with a generator a sample of the posterior. Latents are normalised by
    mean and standard deviation of the posterior means, which ``fit`` measures; ``encode`` and ``decode`` raise
    ValueError before that and before weights are loaded. Training uses ``posterior`` and ``synthesize``, which work on
    codes: latents that are not normalised.
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
            raise ValueError(f"chunk of the autoencoder must be at least 1 latent position, got {chunk}")
        self.channels, self.latent_channels, self.rank = channels, latent_channels, rank
        self.causal, self.chunk = causal, chunk
        levels = _levels(rank, strides, widths)
        self.strides = tuple(math.prod(step) for step in zip(*levels, strict=True))
        self.scale = ChannelScale(
            latent_channels,
            sigma_data,
            channel_name=f"latent channel {{}} of {latent_channels}",
            remedy="the channel is unused: lower autoencoder.loss.kl_weight or autoencoder.network.latent_channels, "
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
            self.encoder: CausalSequential = LinearResidual(down, self.components, is_encoder=True)
            self.decoder: CausalSequential = LinearResidual(up, self.components, is_encoder=False)
        else:
            self.encoder, self.decoder = CausalSequential(*down), CausalSequential(*up)

    def prepare(self, samples: Iterable[Tensor]) -> None:
        """Measures the components over batches ``(B, C, *S)``; reads none without ``linear_residual``."""
        if self.components is not None:
            self.components.fit(samples)

    def posterior(self, sample: Tensor) -> tuple[Tensor, Tensor]:
        """Returns mean and log variance ``(B, c, *s)`` of the codes of samples ``(B, C, *S)``."""
        self._check_sample(sample)
        return _moments(self.encoder(self._channels_last(sample)))

    def synthesize(self, code: Tensor) -> Tensor:
        """Returns samples ``(B, C, *S)``, not clipped, for codes ``(B, c, *s)``."""
        return self.decoder(self._channels_last(code))

    def fit(self, samples: Iterable[Tensor]) -> None:
        """Measures mean and standard deviation of the posterior means over batches ``(B, C, *S)``.

        Raises ValueError when there is nothing to measure, and for a latent channel that is constant.
        """
        device = next(self.parameters()).device
        with torch.no_grad():
            self.scale.fit(self.posterior(sample.to(device))[0] for sample in samples)

    def encode(self, sample: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Returns latents ``(B, c, *s)``: the posterior's mean, or a sample of it with a generator; normalised."""
        self._check_sample(sample)
        moments = _concatenate(self._in_chunks(self.encoder, sample, self.strides[0]))
        code, log_variance = _moments(moments)
        if generator is not None:
            noise = torch.randn(code.shape, generator=generator, device=generator.device, dtype=code.dtype)
            code = code + (log_variance / 2).exp() * noise.to(code.device)
        return self.scale.normalize(code)

    def decode(self, latent: Tensor) -> Tensor:
        """Returns samples ``(B, C, *S)``, clipped to [-1, 1]."""
        return _concatenate(self.decode_in_chunks(latent))

    def decode_in_chunks(self, latent: Tensor) -> Iterator[Tensor]:
        """Yields what ``decode`` returns, in chunks along the first axis of S; one chunk if it is not causal."""
        for chunk in self._in_chunks(self.decoder, self.scale.denormalize(latent), 1):
            yield chunk.clamp(-1, 1)

    def latent_shape(self, sample_shape: Sequence[int]) -> tuple[int, ...]:
        """Returns ``(c, *s)``, each axis of ``(C, *S)`` divided by its stride; raises ValueError for a remainder."""
        sizes, singles = tuple(sample_shape[1:]), self._num_single
        if len(sizes) != self.rank or any(
            size < first or (size - first) % step
            for size, step, first in zip(sizes, self.strides, singles, strict=True)
        ):
            causal = f" (along the first of them 1 more: {self._lengths(sizes)})" if self.causal else ""
            raise ValueError(
                f"samples of size {'×'.join(map(str, sizes))} cannot be encoded: the autoencoder needs {self.rank} "
                f"axes in multiples of {'×'.join(map(str, self.strides))}{causal} (autoencoder.network); choose "
                "another size"
            )
        grid = zip(sizes, self.strides, singles, strict=True)
        return (self.latent_channels, *(first + (size - first) // step for size, step, first in grid))

    def sample_shape(self, latent_shape: Sequence[int]) -> tuple[int, ...]:
        """Returns ``(C, *S)``, each axis of ``(c, *s)`` times its stride."""
        grid = zip(latent_shape[1:], self.strides, self._num_single, strict=True)
        return (self.channels, *(first + (size - first) * step for size, step, first in grid))

    def latent_mask(self, mask: Tensor) -> Tensor:
        """Returns ``(B, 1, *s)``, one where the mask ``(B, 1, *S)`` is one in all of a latent position's block."""
        self.latent_shape(mask.shape[1:])
        if not self.causal:
            return all_within(mask, self.strides)
        first, rest = mask[:, :, :1], mask[:, :, 1:]
        return torch.cat([all_within(first, (1, *self.strides[1:])), all_within(rest, self.strides)], 2)

    @property
    def _num_single(self) -> tuple[int, ...]:
        """Returns the number of first positions that are encoded alone, for each axis: one along a causal axis."""
        return (int(self.causal), *[0] * (self.rank - 1))

    def _lengths(self, sizes: Sequence[int]) -> str:
        """Returns, as text, the two lengths nearest to a size that a causal network accepts."""
        step, size = self.strides[0], sizes[0] if sizes else 1
        below = 1 + max(0, size - 1) // step * step
        return f"{below}, {below + step}"

    def _in_chunks(self, network: CausalSequential, x: Tensor, stride: int) -> Iterator[Tensor]:
        """Yields a network's output chunk by chunk along the first axis; stride: positions of x for a latent one."""
        if not self.causal:
            yield network(self._channels_last(x))
            return
        cache: FeatureCache = {}
        begin, end = 0, 1 + stride * (self.chunk - 1)
        while begin < x.shape[2]:
            yield network(self._channels_last(x[:, :, begin:end]), cache)
            begin, end = end, end + stride * self.chunk

    def _channels_last(self, x: Tensor) -> Tensor:
        # Convolutions keep the memory format of their input; channels last is a third faster on a CPU.
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
    """Returns mean and log variance from the output of an encoder."""
    mean, log_variance = encoded.chunk(2, 1)
    return mean, log_variance.clamp(*_LOG_VARIANCE)


def _concatenate(chunks: Iterable[Tensor]) -> Tensor:
    """Returns chunks concatenated along the first axis of S."""
    found = list(chunks)
    return found[0] if len(found) == 1 else torch.cat(found, 2)


def all_within(mask: Tensor, strides: Sequence[int]) -> Tensor:
    """Returns ``(B, 1, *s)``, one where a mask is one in all of a block of ``strides`` positions."""
    rank = len(strides)
    chunks = [part for size, step in zip(mask.shape[2:], strides, strict=True) for part in (size // step, step)]
    return mask.reshape(len(mask), 1, *chunks).amin(tuple(range(3, 3 + 2 * rank, 2)))


def _levels(rank: int, strides: Sequence[int | Sequence[int]], widths: Sequence[int]) -> list[tuple[int, ...]]:
    """Returns the strides of each level, one for each axis; raises ValueError as ``KLAutoencoder`` does."""
    if rank not in CONVOLUTIONS:
        raise ValueError(f"rank of the autoencoder must be 1, 2 or 3, got {rank}")
    levels = [(step,) * rank if isinstance(step, int) else tuple(step) for step in strides]
    if not levels or any(len(level) != rank or min(level) < 1 for level in levels):
        raise ValueError(
            f"strides of the autoencoder must be a whole number or {rank} of them for each level, at least 1; "
            f"got {strides}"
        )
    if len(widths) != len(levels) or min(widths) < 1:
        raise ValueError(f"widths of the autoencoder must be {len(levels)} numbers, as many as strides; got {widths}")
    return levels


def gaussian_kl(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Returns KL(N(mean, variance) ‖ N(0, 1)) of each sample ``(B,)``, in nats, averaged over all its entries."""
    mean, log_variance = mean.float(), log_variance.float()
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).flatten(1).mean(1)


def gradient_distance(difference: Tensor, num_scales: int = 3) -> Tensor:
    """Returns the mean absolute gradient ``(B,)`` of differences ``(B, C, *S)`` over their axes and several scales.

    Each scale averages pairs of positions of the one before. An axis of one position has no gradient.
    """
    pool = {1: functional.avg_pool1d, 2: functional.avg_pool2d, 3: functional.avg_pool3d}[difference.ndim - 2]
    gradients = []
    for _ in range(num_scales):
        axes = [axis for axis in range(2, difference.ndim) if difference.shape[axis] > 1]
        gradients += [difference.diff(dim=axis).abs().flatten(1).mean(1) for axis in axes]
        difference = pool(difference, [min(2, size) for size in difference.shape[2:]])
    return torch.stack(gradients).mean(0) if gradients else difference.new_zeros(len(difference))

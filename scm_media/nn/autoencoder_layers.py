"""Layers of convolutional autoencoders, which may be causal along the first axis of their input.

In a causal layer no position depends on a later one. The input is padded by copies of its first position, so that a
still clip has the code of its picture whatever the weights are. A ``FeatureCache`` allows an input to pass in chunks
along that axis, with the same result as in one pass. Source: Yu et al. 2023 (MAGVIT-v2, arXiv 2310.05737), section
3.2; padding and norms are as described here.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

CONVOLUTIONS: Mapping[int, Any] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
"""Number of axes of a sample to the convolution."""

FeatureCache = dict[nn.Module, Tensor]
"""Layer to the last positions of its input, which it needs for the next chunk; empty before the first chunk."""

_GROUP = 8


def group_norm(width: int) -> nn.GroupNorm:
    """Returns a group norm over groups of eight channels, or over all channels where eight does not divide them."""
    return nn.GroupNorm(_num_groups(width), width)


def _num_groups(width: int) -> int:
    return width // _GROUP if width % _GROUP == 0 else 1


class CausalConvolution(nn.Module):
    """A convolution whose output j along the first axis depends on positions up to j · stride of its input.

    1 + stride · k positions give 1 + k outputs: the first depends on the first position alone, each later one on a
    group of ``stride`` positions and those before it. In a later chunk, with a cache, stride · k positions give k.
    kernel, stride: one number for each axis; kernels of ``stride`` + 2 keep the size of the other axes.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: Sequence[int], stride: Sequence[int]) -> None:
        super().__init__()
        self.inner = CONVOLUTIONS[len(kernel)](
            in_channels, out_channels, tuple(kernel), tuple(stride), padding=(0, *(1 for _ in kernel[1:]))
        )
        self.before, self.kept = kernel[0] - 1, kernel[0] - stride[0]

    def forward(self, x: Tensor, cache: FeatureCache | None = None) -> Tensor:
        """Returns ``(B, out_channels, *S / stride)`` for ``(B, in_channels, *S)``."""
        past = None if cache is None else cache.get(self)
        if past is None:
            past = x[:, :, :1].expand(-1, -1, self.before, *x.shape[3:])
        x = torch.cat([past, x], 2)
        if cache is not None:
            cache[self] = x[:, :, x.shape[2] - self.kept :].clone()  # a view would keep the whole chunk alive
        return self.inner(x)


class PerFrameGroupNorm(nn.GroupNorm):
    """Group norm of each position along the first axis alone, so that no position depends on a later one."""

    def __init__(self, width: int) -> None:
        super().__init__(_num_groups(width), width)

    def forward(self, x: Tensor) -> Tensor:
        """Returns ``(B, C, *S)`` for ``(B, C, *S)``."""
        num, num_frames = x.shape[0], x.shape[2]
        each = super().forward(x.transpose(1, 2).flatten(0, 1))
        return each.unflatten(0, (num, num_frames)).transpose(1, 2)


class Convolutions:
    """Makes the layers of a network for ``rank`` axes; causal: along the first of them."""

    def __init__(self, rank: int, causal: bool) -> None:
        self.rank, self.causal = rank, causal

    def convolution(self, in_channels: int, out_channels: int, stride: Sequence[int] | None = None) -> nn.Module:
        """Returns a convolution with kernel stride + 2 (3 without a stride): size / stride outputs along each axis."""
        step = (1,) * self.rank if stride is None else tuple(stride)
        kernel = tuple(size + 2 for size in step)
        if self.causal:
            return CausalConvolution(in_channels, out_channels, kernel, step)
        return CONVOLUTIONS[self.rank](in_channels, out_channels, kernel, step, padding=1)

    def norm(self, width: int) -> nn.GroupNorm:
        """Returns a group norm, in a causal network one of each position along the first axis alone."""
        return PerFrameGroupNorm(width) if self.causal else group_norm(width)


class CausalSequential(nn.Sequential):
    """Layers in sequence; those that need earlier chunks get the cache."""

    def forward(self, x: Tensor, cache: FeatureCache | None = None) -> Tensor:
        """Returns the output of the last layer."""
        for layer in self:
            x = layer(x, cache) if isinstance(layer, CACHED) else layer(x)
        return x


class ResidualBlock(nn.Module):
    """A layer x + conv(act(norm(conv(act(norm(x)))))), whose last convolution starts at zero."""

    def __init__(self, width: int, kind: Convolutions) -> None:
        super().__init__()
        last = kind.convolution(width, width)
        for parameter in last.parameters():
            nn.init.zeros_(parameter)
        first = kind.convolution(width, width)
        self.layers = CausalSequential(kind.norm(width), nn.SiLU(), first, kind.norm(width), nn.SiLU(), last)

    def forward(self, x: Tensor, cache: FeatureCache | None = None) -> Tensor:
        """Returns ``(B, width, *S)`` for ``(B, width, *S)``."""
        return x + self.layers(x, cache)


class SubPixelUpsample(nn.Module):
    """A convolution to ``prod(stride)`` times the channels, which become positions (sub-pixel convolution).

    All positions of one output start with the same weights, so that a new layer makes no checkerboard. Causal along
    the first axis, 1 + k positions become 1 + stride · k: of the first group only the last position is kept.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: Sequence[int], kind: Convolutions) -> None:
        super().__init__()
        self.out_channels, self.stride, self.causal = out_channels, tuple(stride), kind.causal
        volume = math.prod(stride)
        self.convolution = kind.convolution(in_channels, out_channels * volume)
        for parameter in self.convolution.parameters():
            parameter.data.copy_(parameter.data[::volume].repeat_interleave(volume, 0))

    def forward(self, x: Tensor, cache: FeatureCache | None = None) -> Tensor:
        """Returns ``(B, out_channels, *S · stride)`` for ``(B, in_channels, *S)``."""
        is_first = cache is None or self not in cache
        x = self.convolution(x, cache) if self.causal else self.convolution(x)
        if math.prod(self.stride) == 1:
            return x
        rank, sizes = len(self.stride), x.shape[2:]
        x = x.reshape(x.shape[0], self.out_channels, *self.stride, *sizes)
        axes = itertools.chain.from_iterable((2 + rank + axis, 2 + axis) for axis in range(rank))
        shape = [size * step for size, step in zip(sizes, self.stride, strict=True)]
        x = x.permute(0, 1, *axes).reshape(x.shape[0], self.out_channels, *shape)
        if not self.causal:
            return x
        if cache is not None:
            cache[self] = x.new_empty(0)
        return x[:, :, self.stride[0] - 1 :] if is_first else x


CACHED = (CausalConvolution, ResidualBlock, SubPixelUpsample)
"""The layers that get the cache."""

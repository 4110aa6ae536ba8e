"""Layers of convolutional autoencoders, causal along the first axis of their input or not.

Causal: no place depends on one after it. Before the first place that place itself is repeated, so that the code of a
still is that of its picture through any weights. A ``FeatureCache`` lets an input be passed in pieces along that axis,
with the same outcome as at once. Source: Yu et al. 2023 (MAGVIT-v2, arXiv 2310.05737), section 3.2, with the padding
and the norms told here.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

CONVOLUTIONS: Mapping[int, Any] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
"""Convolution by the number of axes of a sample."""

FeatureCache = dict[nn.Module, Tensor]
"""What each layer has to remember of the pieces that it was given: its last input places. Empty before the first."""

_GROUP = 8


def group_norm(width: int) -> nn.GroupNorm:
    """Group norm over groups of eight channels, of all where eight do not divide them."""
    return nn.GroupNorm(_num_groups(width), width)


def _num_groups(width: int) -> int:
    return width // _GROUP if width % _GROUP == 0 else 1


class CausalConvolution(nn.Module):
    """A convolution whose output place j along the first axis sees places up to j · stride of its input.

    Of 1 + stride · k places there are 1 + k outputs: the first of the first place alone, each next of a group of
    ``stride`` places and what came before. Of a later piece, with a memory, stride · k places give k.
    kernel, stride: one number an axis; kernels are ``stride`` + 2, or 3, and keep the size of the other axes.
    """

    def __init__(self, enters: int, leaves: int, kernel: Sequence[int], stride: Sequence[int]) -> None:
        super().__init__()
        self.inner = CONVOLUTIONS[len(kernel)](
            enters, leaves, tuple(kernel), tuple(stride), padding=(0, *(1 for _ in kernel[1:]))
        )
        self.before, self.kept = kernel[0] - 1, kernel[0] - stride[0]

    def forward(self, x: Tensor, memory: FeatureCache | None = None) -> Tensor:
        """``(B, enters, *S)`` to ``(B, leaves, *S / stride)``."""
        past = None if memory is None else memory.get(self)
        if past is None:
            past = x[:, :, :1].expand(-1, -1, self.before, *x.shape[3:])
        x = torch.cat([past, x], 2)
        if memory is not None:
            memory[self] = x[:, :, x.shape[2] - self.kept :].clone()  # a view would keep the whole piece alive
        return self.inner(x)


class PerFrameGroupNorm(nn.GroupNorm):
    """Group norm of each place of the first axis by itself: what comes later changes nothing before it."""

    def __init__(self, width: int) -> None:
        super().__init__(_num_groups(width), width)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, *S)``."""
        num, places = x.shape[0], x.shape[2]
        each = super().forward(x.transpose(1, 2).flatten(0, 1))
        return each.unflatten(0, (num, places)).transpose(1, 2)


class Convolutions:
    """The layers of a network of ``rank`` axes, causal along the first of them or not."""

    def __init__(self, rank: int, causal: bool) -> None:
        self.rank, self.causal = rank, causal

    def convolution(self, enters: int, leaves: int, stride: Sequence[int] | None = None) -> nn.Module:
        """A kernel of 3, or of stride + 2: exactly size / stride places, each seeing its neighbours."""
        step = (1,) * self.rank if stride is None else tuple(stride)
        kernel = tuple(size + 2 for size in step)
        if self.causal:
            return CausalConvolution(enters, leaves, kernel, step)
        return CONVOLUTIONS[self.rank](enters, leaves, kernel, step, padding=1)

    def norm(self, width: int) -> nn.GroupNorm:
        """Group norm, of each place of the first axis by itself in a causal network."""
        return PerFrameGroupNorm(width) if self.causal else group_norm(width)


class CausalSequential(nn.Sequential):
    """Layers one after the other; a memory goes to those that have one."""

    def forward(self, x: Tensor, memory: FeatureCache | None = None) -> Tensor:
        """What the last layer makes of x."""
        for layer in self:
            x = layer(x, memory) if isinstance(layer, REMEMBERING) else layer(x)
        return x


class ResidualBlock(nn.Module):
    """x + conv(act(norm(conv(act(norm(x)))))); the last convolution starts at zero."""

    def __init__(self, width: int, kind: Convolutions) -> None:
        super().__init__()
        last = kind.convolution(width, width)
        for parameter in last.parameters():
            nn.init.zeros_(parameter)
        first = kind.convolution(width, width)
        self.layers = CausalSequential(kind.norm(width), nn.SiLU(), first, kind.norm(width), nn.SiLU(), last)

    def forward(self, x: Tensor, memory: FeatureCache | None = None) -> Tensor:
        """``(B, width, *S)`` to the same."""
        return x + self.layers(x, memory)


class SubPixelUpsample(nn.Module):
    """A convolution to ``prod(stride)`` times the channels, which are then laid out as places ("sub-pixel").

    All places of one output start with the same weights, so that a fresh layer makes no checkerboard. Causal along
    the first axis, 1 + k places become 1 + stride · k: of those of the first place only the last is kept.
    """

    def __init__(self, enters: int, leaves: int, stride: Sequence[int], kind: Convolutions) -> None:
        super().__init__()
        self.leaves, self.stride, self.causal = leaves, tuple(stride), kind.causal
        places = math.prod(stride)
        self.convolution = kind.convolution(enters, leaves * places)
        for parameter in self.convolution.parameters():
            parameter.data.copy_(parameter.data[::places].repeat_interleave(places, 0))

    def forward(self, x: Tensor, memory: FeatureCache | None = None) -> Tensor:
        """``(B, enters, *S)`` to ``(B, leaves, *S · stride)``."""
        begins = memory is None or self not in memory
        x = self.convolution(x, memory) if self.causal else self.convolution(x)
        if math.prod(self.stride) == 1:
            return x
        rank, sizes = len(self.stride), x.shape[2:]
        x = x.reshape(len(x), self.leaves, *self.stride, *sizes)
        axes = itertools.chain.from_iterable((2 + rank + axis, 2 + axis) for axis in range(rank))
        shape = [size * step for size, step in zip(sizes, self.stride, strict=True)]
        x = x.permute(0, 1, *axes).reshape(len(x), self.leaves, *shape)
        if not self.causal:
            return x
        if memory is not None:
            memory[self] = x.new_empty(0)
        return x[:, :, self.stride[0] - 1 :] if begins else x


REMEMBERING = (CausalConvolution, ResidualBlock, SubPixelUpsample)
"""The layers that are given the memory."""

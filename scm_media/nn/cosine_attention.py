"""The attention of the U-Net, by magnitude-preserving layers and with normalised queries, keys and values."""

from __future__ import annotations

import math

from torch import Tensor, nn

from scm_media.nn.attention import attend
from scm_media.nn.dual import TensorLike, apply_linear, value_of
from scm_media.nn.magnitude import MPConvolution, MPLinear
from scm_media.nn.normalization import rms_normalize


class CosineAttention(nn.Module):
    """Self-attention over all positions with normalised queries, keys and values in each head (EDM2, config C)."""

    def __init__(self, rank: int, channels: int, head_width: int) -> None:
        super().__init__()
        self.num_heads = max(1, channels // head_width)
        if channels % self.num_heads:
            raise ValueError(
                f"{channels} channels do not split into {self.num_heads} heads: change head_width {head_width}"
            )
        self.qkv = MPConvolution(rank, channels, 3 * channels, kernel=1)
        self.out = MPConvolution(rank, channels, channels, kernel=1)

    def forward(self, x: TensorLike, key_mask: Tensor | None = None) -> TensorLike:
        """Returns ``(B, c, *s)`` for ``(B, c, *s)``; key_mask ``(B, L)`` is true where a position may be seen."""
        shape = value_of(x).shape
        heads = (shape[0], 3, self.num_heads, shape[1] // self.num_heads, math.prod(shape[2:]))
        projected = self.qkv(x)
        dtype = value_of(projected).dtype
        split = apply_linear(lambda v: v.reshape(heads).permute(1, 0, 2, 4, 3), projected)
        split = apply_linear(lambda v: v.to(dtype), rms_normalize(split))

        q = apply_linear(lambda v: v[0], split)
        k = apply_linear(lambda v: v[1], split)
        attended = attend(q, k, apply_linear(lambda v: v[2], split), key_mask)
        return self.out(apply_linear(lambda v: v.transpose(-1, -2).reshape(shape), attended))


class CosineCrossAttention(nn.Module):
    """Attention of all positions to the tokens of a text, in as many heads as a ``CosineAttention``."""

    def __init__(self, rank: int, channels: int, num_heads: int, text_width: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query = MPConvolution(rank, channels, channels, kernel=1)
        self.key_value = MPLinear(text_width, 2 * channels)
        self.out = MPConvolution(rank, channels, channels, kernel=1)

    def forward(self, x: TensorLike, text: Tensor, text_mask: Tensor) -> TensorLike:
        """Returns ``(B, c, *s)`` for x ``(B, c, *s)`` and a text ``(B, N, text_width)``.

        text_mask: ``(B, N)``, true where a token of the text may be seen, at least one of each sample.
        """
        shape = value_of(x).shape
        projected = self.query(x)
        dtype = value_of(projected).dtype
        heads = (shape[0], self.num_heads, shape[1] // self.num_heads, math.prod(shape[2:]))
        q = rms_normalize(apply_linear(lambda v: v.reshape(heads).mT, projected))
        q = apply_linear(lambda v: v.to(dtype), q)
        split = value_of(self.key_value(text)).unflatten(-1, (2, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        k, v = value_of(rms_normalize(split)).to(dtype)
        attended = attend(q, k, v, text_mask)
        return self.out(apply_linear(lambda heads_: heads_.mT.reshape(shape), attended))

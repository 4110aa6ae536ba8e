"""Attention that carries a dual tensor."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from scm_media.attention_tangent import attention_tangent
from scm_media.nn.context_parallel import check_heads, exchange
from scm_media.nn.dual import DualTensor, Linear, TensorLike, apply_linear, value_of
from scm_media.nn.normalization import rms_normalize

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

SHORT = 512
"""The largest number of keys whose softmax fits the cache of a CPU; its fused backward is several times slower."""


def attend(q: TensorLike, k: TensorLike, v: TensorLike, key_mask: Tensor | None = None) -> TensorLike:
    """Returns softmax(q kᵀ / √d) v for heads ``(B, h, L, d)``; key_mask ``(B, N)`` is true where a key may be seen.

    Keys and values, ``(B, h, N, d)``, may be plain beside a dual q, as those of a text are: they have no tangent then.
    The tangent is that of ``attention_tangent``; on a CPU, few keys share the softmax P between value and tangent.
    """
    mask = None if key_mask is None else key_mask[:, None, None, :]
    if not isinstance(q, DualTensor):
        assert not isinstance(k, DualTensor) and not isinstance(v, DualTensor)
        if q.device.type == "cpu" and k.shape[-2] <= SHORT:
            return _probabilities(q, k, mask).to(v.dtype) @ v
        return nnf.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    (keys, dk), (values, dv) = _pair(k), _pair(v)
    if q.value.device.type != "cpu" or keys.shape[-2] > SHORT:
        out = nnf.scaled_dot_product_attention(q.value, keys, values, attn_mask=mask)
        query, key, value = ((x.detach(), dx) for x, dx in ((q.value, q.tangent), (keys, dk), (values, dv)))
        scale = 1 / math.sqrt(q.value.shape[-1])
        return DualTensor(out, attention_tangent(query, key, value, out.detach(), scale, mask))
    P = _probabilities(q.value, keys, mask)
    out = P.to(values.dtype) @ values
    with torch.no_grad():
        dS = q.tangent @ keys.mT
        dS = (dS if dk is None else dS + q.value @ dk.mT) / math.sqrt(q.value.shape[-1])
        PdS = P * dS
        tangent = PdS.to(out.dtype) @ values - PdS.sum(-1, keepdim=True) * out
        return DualTensor(out, tangent if dv is None else tangent + P.to(out.dtype) @ dv)


def _pair(x: TensorLike) -> tuple[Tensor, Tensor | None]:
    """Returns the value and the tangent of x, None for a plain tensor."""
    return (x.value, x.tangent) if isinstance(x, DualTensor) else (x, None)


def _probabilities(q: Tensor, k: Tensor, mask: Tensor | None) -> Tensor:
    """Returns softmax(q kᵀ / √d) ``(B, h, L, N)``, in float32 or wider."""
    scores = (q / math.sqrt(q.shape[-1])) @ k.mT
    scores = scores if scores.dtype == torch.float64 else scores.float()
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    return torch.softmax(scores, dim=-1)


def rotate(x: TensorLike, angles: Tensor) -> TensorLike:
    """Rotates channels i and i + d/2 of heads ``(B, h, L, d)`` by angles ``(L, d/2)``: the rotary embedding."""

    def turn(heads: Tensor) -> Tensor:
        cos, sin = angles.cos().to(heads.dtype), angles.sin().to(heads.dtype)
        first, second = heads.chunk(2, dim=-1)
        return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)

    return apply_linear(turn, x)


class SelfAttention(nn.Module):
    """Multi-head self-attention with RMS-normalised queries and keys and rotary positions."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        if width % num_heads or (width // num_heads) % 2:
            raise ValueError(f"width {width} must be an even multiple of num_heads {num_heads}")
        self.num_heads = num_heads
        self.qkv = Linear(width, 3 * width, bias=False)
        self.query_gain = nn.Parameter(torch.ones(width // num_heads))
        self.out = Linear(width, width)

    def forward(
        self, x: TensorLike, angles: Tensor, key_mask: Tensor | None = None, group: ProcessGroup | None = None
    ) -> TensorLike:
        """Returns tokens ``(B, l, width)`` for tokens ``(B, l, width)``; angles: ``(L, d/2)``, key_mask: ``(B, L)``.

        group: the ranks that share the L tokens of each sample, l on each (``context_parallel``); None where l is L.
        Raises ValueError where the ranks do not divide the heads.
        """
        batch, length, width = value_of(x).shape
        heads = self.num_heads
        check_heads(heads, group)

        def split(projected: Tensor) -> Tensor:
            return projected.view(batch, length, 3, heads, width // heads).permute(2, 0, 3, 1, 4)

        projected = exchange(apply_linear(split, self.qkv(x)), -3, -2, len(angles), group)
        dtype = value_of(projected).dtype
        q = rms_normalize(apply_linear(lambda p: p[0], projected))
        k = rms_normalize(apply_linear(lambda p: p[1], projected))
        q = apply_linear(lambda heads_: heads_ * self.query_gain, q)
        q = apply_linear(lambda heads_: heads_.to(dtype), rotate(q, angles))
        k = apply_linear(lambda heads_: heads_.to(dtype), rotate(k, angles))
        attended = exchange(attend(q, k, apply_linear(lambda p: p[2], projected), key_mask), -2, -3, heads, group)
        return self.out(apply_linear(lambda heads_: heads_.transpose(1, 2).reshape(batch, length, width), attended))


class CrossAttention(nn.Module):
    """Multi-head attention of tokens to those of a text, with RMS-normalised queries and keys, without positions."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query = Linear(width, width, bias=False)
        self.key_value = nn.Linear(width, 2 * width, bias=False)
        self.query_gain = nn.Parameter(torch.ones(width // num_heads))
        self.out = Linear(width, width)

    def forward(self, x: TensorLike, text: Tensor, text_mask: Tensor) -> TensorLike:
        """Returns tokens ``(B, L, width)`` for tokens ``(B, L, width)`` and a text ``(B, N, width)``.

        text_mask: ``(B, N)``, true where a token of the text may be seen, at least one of each sample. Ranks that share
        the tokens of x each have the whole text, and trade nothing.
        """
        batch, length, width = value_of(x).shape
        projected = self.query(x)
        dtype = value_of(projected).dtype

        def split(tokens: Tensor) -> Tensor:
            return tokens.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

        q = apply_linear(lambda heads: heads * self.query_gain, rms_normalize(apply_linear(split, projected)))
        q = apply_linear(lambda heads: heads.to(dtype), q)
        k, v = (split(each) for each in self.key_value(text).chunk(2, -1))
        k = value_of(rms_normalize(k)).to(dtype)
        attended = attend(q, k, v, text_mask)
        return self.out(apply_linear(lambda heads: heads.transpose(1, 2).reshape(batch, length, width), attended))

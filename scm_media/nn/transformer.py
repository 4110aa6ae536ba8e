"""A transformer over patches of a latent of any rank."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from scm_media.conditioning import Conditioning
from scm_media.nn.attention import SelfAttention
from scm_media.nn.dual import Dropout, Linear, TensorLike, add, apply_linear, concatenate, multiply, silu, value_of
from scm_media.nn.embedding import LabelEmbedding, PositionEmbedding, ScalarEmbedding, rotary_angles
from scm_media.nn.normalization import AdaptiveDoubleNorm
from scm_media.parts import part


class FeedForward(nn.Module):
    """Two matrix layers with SiLU between."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.first = Linear(width, hidden)
        self.second = Linear(hidden, width)

    def forward(self, x: TensorLike) -> TensorLike:
        """Tokens ``(B, L, width)`` to tokens ``(B, L, width)``."""
        return self.second(silu(self.first(x)))


class TransformerBlock(nn.Module):
    """Attention and a feed-forward layer, each after an adaptive double norm, each added to the residual stream."""

    def __init__(self, width: int, num_heads: int, hidden: int, cond_width: int, dropout: float) -> None:
        super().__init__()
        self.attention_norm = AdaptiveDoubleNorm(width, cond_width)
        self.attention = SelfAttention(width, num_heads)
        self.feed_forward_norm = AdaptiveDoubleNorm(width, cond_width)
        self.feed_forward = FeedForward(width, hidden)
        self.dropout = Dropout(dropout)
        for last in (self.attention.out, self.feed_forward.second):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def forward(self, x: TensorLike, c: TensorLike, angles: Tensor, key_mask: Tensor | None) -> TensorLike:
        """Tokens ``(B, L, width)`` for a conditioning vector c ``(B, cond_width)``."""
        x = add(x, self.attention(self.attention_norm(x, c), angles, key_mask))
        return add(x, self.dropout(self.feed_forward(self.feed_forward_norm(x, c))))


@part("backbone")
class Transformer(nn.Module):
    """F(u, t, cond): patches of ``(B, c, *s)`` as tokens, time and labels by adaptive double norm.

    Any rank and any extent that the patch divides. Carries a ``DualTensor`` through every layer. labels: name to
    number of classes (0: a scalar label); label_units: see ``LabelEmbedding``. num_cond_channels: channels of
    ``cond.concat``. guidance: whether the guidance scale is an input (sCM, section 5.2; Meng et al. 2023).

    skip: whether each token also says how much of its own patch of u belongs to F: out + gate · u, element by element.
    Without it F lies in ``width`` directions of each patch, so that noise in the others is never taken away: a patch
    of more values than ``width`` (long latents, few tokens) needs it. In a direction without data F is cot(t) · u.
    """

    accepts_dual = True

    def __init__(
        self,
        in_channels: int,
        rank: int,
        patch: int | Sequence[int],
        width: int,
        depth: int,
        num_heads: int,
        labels: Mapping[str, int] | None = None,
        mlp_ratio: float = 4.0,
        dropout: float = 0.0,
        num_cond_channels: int = 0,
        guidance: bool = False,
        label_units: Mapping[str, float] | None = None,
        skip: bool = False,
    ) -> None:
        super().__init__()
        self.in_channels, self.num_cond_channels = in_channels, num_cond_channels
        if not 1 <= rank <= 4:
            raise ValueError(f"rank of the transformer must lie in 1 … 4, got {rank}")
        self.patch = (patch,) * rank if isinstance(patch, int) else tuple(patch)
        if len(self.patch) != rank:
            raise ValueError(f"patch {self.patch} must have one entry for each of the {rank} axes")
        self.head_width = width // num_heads
        volume = math.prod(self.patch)
        self.patch_in = Linear((in_channels + num_cond_channels) * volume, width)
        self.position = PositionEmbedding(rank, width)
        self.time = ScalarEmbedding(width)
        self.labels = LabelEmbedding(labels or {}, width, units=label_units)
        self.guidance = ScalarEmbedding(width) if guidance else None
        if self.guidance is not None:  # at first the scale says nothing: a student starts as its teacher
            nn.init.zeros_(self.guidance.second.weight)
            nn.init.zeros_(self.guidance.second.bias)
        self.blocks = nn.ModuleList(
            self.make_block(width, num_heads, int(width * mlp_ratio), width, dropout) for _ in range(depth)
        )
        self.out_norm = AdaptiveDoubleNorm(width, width)
        self.patch_out = Linear(width, in_channels * volume)
        self.gate = Linear(width, in_channels * volume) if skip else None
        for last in (self.patch_out, self.gate):
            if last is not None:
                nn.init.zeros_(last.weight)
                nn.init.zeros_(last.bias)

    def forward(self, u: TensorLike, t: TensorLike, cond: Conditioning) -> TensorLike:
        """F ``(B, c, *s)`` for u ``(B, c, *s)`` and t ``(B,)``; a pair for pairs."""
        shape = value_of(u).shape
        if len(shape) != 2 + len(self.patch) or shape[1] != self.in_channels:
            raise ValueError(
                f"expected a latent (B, {self.in_channels}, *s) with {len(self.patch)} axes, got {tuple(shape)}"
            )
        if any(size_option % step for size_option, step in zip(shape[2:], self.patch, strict=True)):
            raise ValueError(f"extents {tuple(shape[2:])} must be multiples of the patch {self.patch}")
        grid = [size_option // step for size_option, step in zip(shape[2:], self.patch, strict=True)]
        own = u
        if self.num_cond_channels:
            concat = cond.concat
            if concat is None:
                concat = value_of(u).new_zeros(shape[0], self.num_cond_channels, *shape[2:])
            u = concatenate([u, concat], dim=1)
        x = self.patch_in(apply_linear(lambda v: to_patches(v, self.patch), u))
        x = apply_linear(lambda v: v.to(value_of(u).dtype), x)  # the residual stream stays wide under autocast
        x = add(x, self.position(grid, value_of(u)))
        padding_mask = None if cond.padding_mask is None else to_patches(cond.padding_mask, self.patch).amax(-1) > 0
        places = self.places(grid, padding_mask, value_of(u).device)
        c = self.condition(t, cond)
        for block in self.blocks:
            x = block(x, c, *places)
        x = self.out_norm(x, c)
        out = self.patch_out(x)
        if self.gate is not None:
            out = add(out, multiply(self.gate(x), apply_linear(lambda v: to_patches(v, self.patch), own)))
        return apply_linear(lambda v: from_patches(v.to(value_of(u).dtype), self.patch, grid), out)

    def make_block(self, *arguments: Any) -> nn.Module:
        """A block of this network; its arguments are ``TransformerBlock``'s."""
        return TransformerBlock(*arguments)

    def places(self, grid: Sequence[int], padding_mask: Tensor | None, device: torch.device) -> tuple[Any, ...]:
        """What every block is told of a grid of tokens: rotary angles, and which of them ``(B, L)`` may be seen.

        padding_mask: ``(B, L)``, true where a token is no padding.
        """
        angles = rotary_angles(grid, self.head_width, device)
        # A clip that is all padding attends to itself.
        return angles, None if padding_mask is None else padding_mask | ~padding_mask.any(-1, keepdim=True)

    def condition(self, t: TensorLike, cond: Conditioning) -> TensorLike:
        """The vector ``(B, width)`` that every block is modulated by; float32 under any precision."""
        c = self.time(t)
        c = add(c, self.labels(cond.labels, value_of(c)))
        if self.guidance is not None:
            scale = torch.ones_like(value_of(t)) if cond.guidance is None else cond.guidance.to(value_of(t))
            c = add(c, self.guidance(torch.log(scale)))
        return silu(c)


def to_patches(x: Tensor, patch: Sequence[int]) -> Tensor:
    """Tokens ``(B, L, c · volume)`` of a latent ``(B, c, *s)``."""
    latent, tokens = _patterns(len(patch))
    return rearrange(x, f"{latent} -> {tokens}", **_named("p", patch))


def from_patches(tokens: Tensor, patch: Sequence[int], grid: Sequence[int]) -> Tensor:
    """The latent ``(B, c, *s)`` whose patches the tokens ``(B, L, c · volume)`` are."""
    latent, listed = _patterns(len(patch))
    return rearrange(tokens, f"{listed} -> {latent}", **_named("p", patch), **_named("g", grid))


def _patterns(rank: int) -> tuple[str, str]:
    """A latent and its tokens as einops writes them: ``b c (g0 p0) (g1 p1)`` and ``b (g0 g1) (c p0 p1)``."""
    grid, patch = (" ".join(f"{letter}{axis}" for axis in range(rank)) for letter in "gp")
    sizes = " ".join(f"(g{axis} p{axis})" for axis in range(rank))
    return f"b c {sizes}", f"b ({grid}) (c {patch})"


def _named(letter: str, lengths: Sequence[int]) -> dict[str, int]:
    return {f"{letter}{axis}": length for axis, length in enumerate(lengths)}

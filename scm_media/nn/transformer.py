"""A transformer over patches of a latent of any rank."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from einops import rearrange
from torch import Tensor, nn

from scm_media.conditioning import Conditioning
from scm_media.nn.attention import CrossAttention, SelfAttention
from scm_media.nn.context_parallel import TokenSplit, current_group
from scm_media.nn.dual import Dropout, Linear, TensorLike, add, apply_linear, concatenate, multiply, silu, value_of
from scm_media.nn.embedding import LabelEmbedding, PositionEmbedding, ScalarEmbedding, rotary_angles, target_time
from scm_media.nn.normalization import AdaptiveDoubleNorm
from scm_media.nn.recompute import Blocks
from scm_media.nn.text import Text, TextInput
from scm_media.parts import part

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


class FeedForward(nn.Module):
    """Two linear layers with a SiLU between them."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.first = Linear(width, hidden)
        self.second = Linear(hidden, width)

    def forward(self, x: TensorLike) -> TensorLike:
        """Returns tokens ``(B, L, width)`` for tokens ``(B, L, width)``."""
        return self.second(silu(self.first(x)))


class TransformerBlock(nn.Module):
    """Attention and a feed-forward layer, each after an adaptive double norm, each added to the residual stream.

    ``add_text_attention`` puts attention to the tokens of a text between them.
    """

    def __init__(self, width: int, num_heads: int, hidden: int, cond_width: int, dropout: float) -> None:
        super().__init__()
        self.attention_norm = AdaptiveDoubleNorm(width, cond_width)
        self.attention = SelfAttention(width, num_heads)
        self.feed_forward_norm = AdaptiveDoubleNorm(width, cond_width)
        self.feed_forward = FeedForward(width, hidden)
        self.dropout = Dropout(dropout)
        self.text_norm: AdaptiveDoubleNorm | None = None
        self.text_attention: CrossAttention | None = None
        for last in (self.attention.out, self.feed_forward.second):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def add_text_attention(self) -> None:
        """Adds attention to a text, which has no effect at first: its last projection is zero."""
        width = self.attention.out.in_features
        self.text_norm = AdaptiveDoubleNorm(width, self.attention_norm.modulation.in_features)
        self.text_attention = CrossAttention(width, self.attention.num_heads)
        for parameter in self.text_attention.out.parameters():
            nn.init.zeros_(parameter)

    def forward(
        self,
        x: TensorLike,
        c: TensorLike,
        angles: Tensor,
        key_mask: Tensor | None,
        group: ProcessGroup | None = None,
        text: Text | None = None,
    ) -> TensorLike:
        """Returns tokens ``(B, l, width)`` for tokens x and a conditioning vector c ``(B, cond_width)``.

        angles, key_mask, group: see ``SelfAttention``. text: tokens and mask of ``TextInput``.
        """
        x = add(x, self.attention(self.attention_norm(x, c), angles, key_mask, group))
        x = self.attend_to_text(x, c, text)
        return add(x, self.dropout(self.feed_forward(self.feed_forward_norm(x, c))))

    def attend_to_text(self, x: TensorLike, c: TensorLike, text: Text | None) -> TensorLike:
        """Returns tokens ``(B, l, width)`` after their attention to a text; x itself in a block without it."""
        if self.text_attention is None:
            return x
        assert text is not None and self.text_norm is not None
        return add(x, self.text_attention(self.text_norm(x, c), *text))


@part("backbone")
class Transformer(Blocks):
    """F(u, t, cond) of patches of ``(B, c, *s)`` as tokens, with time and labels by adaptive double norm.

    The latent has any rank and any sizes that the patch divides. Every layer carries a ``DualTensor``. labels: name to
    number of classes (0: a scalar label); label_units: see ``LabelEmbedding``. num_cond_channels: channels of
    ``cond.concat``. guidance: whether the guidance scale is an input (sCM, section 5.2; Meng et al. 2023). target:
    whether the time ``cond.target`` is, which a flow map goes to; at first it has no effect.
    text: the widths of text embeddings, ``tokens`` for attention to ``cond.tokens`` in each block, ``pooled`` for
    ``cond.pooled`` in the conditioning vector, either or both. At first a text has no effect.

    skip: adds a gated copy of the input, so that F is out + gate · u, element by element. Without it F of each patch
    lies in a space of ``width`` dimensions and noise outside that space is never removed: patches of more values than
    ``width`` (long latents, few tokens) need the skip. In a direction without data F is cot(t) · u.

    Within ``context_parallel`` the ranks of a group share the tokens of each sample from the patches to the last
    projection. They must have the same u, t and cond, and a number that divides num_heads; each returns the whole F.
    Ranks that draw the same random numbers drop the same places of their parts under dropout.
    """

    accepts_dual = True
    splits_tokens = True

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
        text: Mapping[str, int] | None = None,
        target: bool = False,
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
        self.guidance = _silent_embedding(width) if guidance else None
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
        # The last to be made, so that all other weights of a seed are those of a network without text.
        self.text = TextInput(text, width)
        for block in self.blocks if "tokens" in self.text.widths else ():
            assert isinstance(block, TransformerBlock)
            block.add_text_attention()
        self.target = _silent_embedding(width) if target else None

    def forward(self, u: TensorLike, t: TensorLike, cond: Conditioning) -> TensorLike:
        """Returns F ``(B, c, *s)`` for u ``(B, c, *s)`` and t ``(B,)``, a dual tensor for dual tensors."""
        shape = value_of(u).shape
        if len(shape) != 2 + len(self.patch) or shape[1] != self.in_channels:
            raise ValueError(
                f"expected a latent (B, {self.in_channels}, *s) with {len(self.patch)} axes, got {tuple(shape)}"
            )
        if any(size % step for size, step in zip(shape[2:], self.patch, strict=True)):
            raise ValueError(f"latent sizes {tuple(shape[2:])} must be multiples of the patch {self.patch}")
        grid = [size // step for size, step in zip(shape[2:], self.patch, strict=True)]
        latent = u
        if self.num_cond_channels:
            u = concatenate([u, cond.channels(self.num_cond_channels, value_of(u))], dim=1)
        split = TokenSplit(current_group(), math.prod(grid), self.tokens_together(grid))

        def tokens(x: TensorLike) -> TensorLike:
            return split.part(apply_linear(lambda v: to_patches(v, self.patch), x))

        x = self.patch_in(tokens(u))
        x = apply_linear(lambda v: v.to(value_of(u).dtype), x)  # the residual stream stays wide under autocast
        x = add(x, split.part(self.position(grid, value_of(u))))
        padding_mask = None if cond.padding_mask is None else to_patches(cond.padding_mask, self.patch).amax(-1) > 0
        inputs = self.block_inputs(grid, padding_mask, value_of(u).device, split.group)
        text = self.text(cond, value_of(u))
        c = self.condition(t, cond)
        for block in self.blocks:
            x = self.run_block(block, x, c, *inputs, *text)
        x = self.out_norm(x, c)
        out = self.patch_out(x)
        if self.gate is not None:
            out = add(out, multiply(self.gate(x), tokens(latent)))
        out = split.whole(apply_linear(lambda v: v.to(value_of(u).dtype), out))
        return apply_linear(lambda v: from_patches(v, self.patch, grid), out)

    def make_block(self, *arguments: Any) -> nn.Module:
        """Returns a block of this network; the arguments are those of ``TransformerBlock``."""
        return TransformerBlock(*arguments)

    def tokens_together(self, grid: Sequence[int]) -> int:
        """Returns the number of neighbouring tokens that one rank must hold where ranks share those of a sample."""
        return 1

    def block_inputs(
        self,
        grid: Sequence[int],
        padding_mask: Tensor | None,
        device: torch.device,
        group: ProcessGroup | None = None,
    ) -> tuple[Any, ...]:
        """Returns the inputs of every block beside x and c: rotary angles, the key mask ``(B, L)``, and the group.

        padding_mask: ``(B, L)``, true where a token is not padding. group: the ranks that share the L tokens. Blocks
        get it as an input, so that those that are computed again in the backward pass share tokens there too.
        """
        angles = rotary_angles(grid, self.head_width, device)
        # A sample that is all padding attends to itself.
        return angles, None if padding_mask is None else padding_mask | ~padding_mask.any(-1, keepdim=True), group

    def condition(self, t: TensorLike, cond: Conditioning) -> TensorLike:
        """Returns the conditioning vector ``(B, width)`` of all blocks, in float32 under any precision."""
        c = self.time(t)
        c = add(c, self.labels(cond.labels, value_of(c)))
        if self.guidance is not None:
            c = add(c, self.guidance(cond.log_guidance(value_of(t))))
        if self.target is not None:
            c = add(c, self.target(target_time(cond, t)))
        return silu(self.text.add_vector(c, cond))


def _silent_embedding(width: int) -> ScalarEmbedding:
    """Returns an embedding that is zero at first, so that a student starts as its teacher."""
    embedding = ScalarEmbedding(width)
    nn.init.zeros_(embedding.second.weight)
    nn.init.zeros_(embedding.second.bias)
    return embedding


def to_patches(x: Tensor, patch: Sequence[int]) -> Tensor:
    """Returns the patches of a latent ``(B, c, *s)`` as tokens ``(B, L, c · volume)``."""
    latent, tokens = _patterns(len(patch))
    return rearrange(x, f"{latent} -> {tokens}", **_lengths("p", patch))


def from_patches(tokens: Tensor, patch: Sequence[int], grid: Sequence[int]) -> Tensor:
    """Returns the latent ``(B, c, *s)`` whose patches are the tokens ``(B, L, c · volume)``."""
    latent, listed = _patterns(len(patch))
    return rearrange(tokens, f"{listed} -> {latent}", **_lengths("p", patch), **_lengths("g", grid))


def _patterns(rank: int) -> tuple[str, str]:
    """Returns einops' patterns of a latent and its tokens: ``b c (g0 p0) (g1 p1)`` and ``b (g0 g1) (c p0 p1)``."""
    grid, patch = (" ".join(f"{letter}{axis}" for axis in range(rank)) for letter in "gp")
    sizes = " ".join(f"(g{axis} p{axis})" for axis in range(rank))
    return f"b c {sizes}", f"b ({grid}) (c {patch})"


def _lengths(letter: str, lengths: Sequence[int]) -> dict[str, int]:
    """Returns the lengths of axes by their names in a pattern: ``{"p0": 4, "p1": 2}``."""
    return {f"{letter}{axis}": length for axis, length in enumerate(lengths)}

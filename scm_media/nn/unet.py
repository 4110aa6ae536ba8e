"""The magnitude-preserving U-Net of EDM2 with sCM's changes, for latents of rank 1, 2 or 3.

Sources: Karras et al. 2024 (EDM2, arXiv 2312.02696), "config G"; Lu & Song 2024 (sCM, arXiv 2410.11081), section 4.1:
the time t itself through a positional embedding, and adaptive double normalisation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from scm_media.conditioning import Conditioning
from scm_media.nn.convolution import double, halve
from scm_media.nn.cosine_attention import CosineAttention, CosineCrossAttention
from scm_media.nn.dual import (
    Dropout,
    TensorLike,
    add,
    apply_linear,
    concatenate,
    full_precision,
    in_full_precision,
    multiply,
    silu,
    value_of,
)
from scm_media.nn.embedding import LabelEmbedding, target_time
from scm_media.nn.magnitude import (
    SILU_GAIN,
    Gains,
    MPConvolution,
    MPEmbedding,
    MPLinear,
    MPScalarEmbedding,
    mp_add,
    mp_concatenate,
    mp_sum,
)
from scm_media.nn.normalization import rms_normalize
from scm_media.nn.recompute import Blocks
from scm_media.nn.text import MPTextTokens, MPTextVector, Text, TextInput
from scm_media.parts import part

RESIDUAL_FRACTION = 0.3
"""The fraction of a block's output in the residual stream (EDM2, config G)."""

Resampling = Literal["same", "down", "up"]


class UNetBlock(Gains):
    """Resampling, two convolutions and attention, with residual sums that keep the magnitude.

    Between the convolutions is adaptive double normalisation, norm(y) · norm(1 + g W c): both factors are
    pixel-normalised, and the learned gain g starts at 0. It has no shift, as in EDM2, and because sCM's parameter
    counts (table 5) leave no room for one.

    ``add_text_attention`` adds attention to the tokens of a text after that among positions.
    """

    def __init__(
        self,
        rank: int,
        in_channels: int,
        out_channels: int,
        cond_width: int,
        is_decoder: bool,
        resample: Resampling = "same",
        head_width: int | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.is_decoder, self.resample, self.out_channels = is_decoder, resample, out_channels
        self.skip = None if in_channels == out_channels else MPConvolution(rank, in_channels, out_channels, kernel=1)
        self.first = MPConvolution(rank, in_channels if is_decoder else out_channels, out_channels, kernel=3)
        self.modulation = in_full_precision(MPLinear(cond_width, out_channels))
        self.modulation_gain = nn.Parameter(torch.zeros(1))
        self.dropout = Dropout(dropout)
        self.second = MPConvolution(rank, out_channels, out_channels, kernel=3)
        self.attention = None if head_width is None else CosineAttention(rank, out_channels, head_width)
        self.text_attention: CosineCrossAttention | None = None

    def add_text_attention(self, rank: int, text_width: int) -> None:
        """Adds attention to a text; its gain starts at 0, so that it has no effect at first."""
        assert self.attention is not None
        self.text_gain = nn.Parameter(torch.zeros(1))
        self.text_attention = CosineCrossAttention(rank, self.out_channels, self.attention.num_heads, text_width)

    def forward(
        self, x: TensorLike, c: TensorLike, key_mask: Tensor | None = None, text: Text | None = None
    ) -> TensorLike:
        """Returns ``(B, out_channels, *s')`` for x ``(B, in_channels, *s)`` and c ``(B, cond_width)``.

        key_mask: see ``CosineAttention``. text: tokens and mask of ``TextInput``.
        """
        if self.resample != "same":
            x = halve(x) if self.resample == "down" else double(x)
        if not self.is_decoder:
            x = rms_normalize(x if self.skip is None else self.skip(x), dim=1)
        y = rms_normalize(self.first(silu(x), SILU_GAIN), dim=1)
        y = self.dropout(silu(multiply(y, self.scale(c, value_of(y).ndim - 2))))
        y = self.second(y, SILU_GAIN)
        if self.is_decoder and self.skip is not None:
            x = self.skip(x)
        x = mp_sum(x, y, RESIDUAL_FRACTION)
        if self.attention is not None:
            x = mp_sum(x, self.attention(x, key_mask), RESIDUAL_FRACTION)
        if self.text_attention is not None:
            assert text is not None
            x = mp_add(x, self.text_attention(x, *text), self.text_gain)
        return x

    def scale(self, c: TensorLike, rank: int) -> TensorLike:
        """Returns norm(1 + g W c) ``(B, out_channels, 1 …)``; value and tangent are float32 under any precision."""
        with full_precision(c):
            scale = self.modulation(c, self.modulation_gain)
            scale = rms_normalize(add(scale, torch.ones_like(value_of(scale))))
        return apply_linear(lambda v: v.reshape(*v.shape, *(1,) * rank), scale)


class ScaleEmbedding(Gains, MPScalarEmbedding):
    """Embeds a guidance scale or a second time, times a gain that starts at 0: a student starts as its teacher."""

    def __init__(self, width: int, num_frequencies: int) -> None:
        super().__init__(width, num_frequencies)
        self.gain = nn.Parameter(torch.zeros(1))

    def forward(self, t: TensorLike) -> TensorLike:
        """Returns ``(B, width)`` for scalars ``(B,)``."""
        return multiply(super().forward(t), self.gain)


@part("backbone")
class UNet(Gains, Blocks):
    """F(u, t, cond) by encoder and decoder blocks; each level has half the resolution of the one before.

    The latent has 1 to 3 axes, whose sizes 2^(levels − 1) divides. Every layer carries a ``DualTensor``.
    channels, multipliers: the width of a level is their product. attention_levels: levels with attention, from 0 at
    full resolution; the middle of the lowest level always has it. dropout: the rate at levels from ``dropout_from`` on.
    labels: name to number of classes (0: a scalar label). num_cond_channels: channels of ``cond.concat``. guidance:
    whether the guidance scale is an input (sCM, appendix G.2). text: the widths of text embeddings, ``tokens`` for
    attention to ``cond.tokens`` in all blocks with attention, ``pooled`` for ``cond.pooled`` in the conditioning
    vector, either or both. target: whether the time ``cond.target`` is an input, which a flow map goes to. At first
    neither has an effect.
    """

    accepts_dual = True

    def __init__(
        self,
        in_channels: int,
        rank: int,
        channels: int,
        multipliers: Sequence[int] = (1, 2, 3, 4),
        num_blocks: int = 3,
        attention_levels: Sequence[int] = (2, 3),
        head_width: int = 64,
        labels: Mapping[str, int] | None = None,
        dropout: float = 0.0,
        dropout_from: int = 0,
        num_cond_channels: int = 0,
        guidance: bool = False,
        text: Mapping[str, int] | None = None,
        target: bool = False,
    ) -> None:
        super().__init__()
        if rank not in (1, 2, 3):
            raise ValueError(f"rank must be 1, 2 or 3, got {rank}")
        if unknown := [level for level in attention_levels if not 0 <= level < len(multipliers)]:
            raise ValueError(f"attention_levels {unknown} do not exist: there are levels 0 to {len(multipliers) - 1}")
        self.in_channels, self.rank, self.num_cond_channels = in_channels, rank, num_cond_channels
        self.num_levels = len(multipliers)
        widths = [channels * multiplier for multiplier in multipliers]
        cond_width = max(widths)
        self.time = MPScalarEmbedding(cond_width, channels // 2)
        self.labels = LabelEmbedding(
            labels or {}, cond_width, MPEmbedding, lambda width: MPScalarEmbedding(width, channels // 2)
        )
        self.guidance = ScaleEmbedding(cond_width, channels // 2) if guidance else None

        def block(
            level: int, in_width: int, out_width: int, is_decoder: bool, attends: bool, resample: Resampling = "same"
        ):
            rate = dropout if level >= dropout_from else 0.0
            return UNetBlock(
                rank, in_width, out_width, cond_width, is_decoder, resample, head_width if attends else None, rate
            )

        self.enter = MPConvolution(rank, in_channels + num_cond_channels + 1, widths[0], kernel=3)
        self.encoder, self.decoder = nn.ModuleList(), nn.ModuleList()
        skips, width = [widths[0]], widths[0]
        for level, out_width in enumerate(widths):
            stage = [block(level, width, width, False, False, "down")] if level else []
            for _ in range(num_blocks):
                stage.append(
                    block(
                        level, stage[-1].out_channels if stage else width, out_width, False, level in attention_levels
                    )
                )
            skips += [entry.out_channels for entry in stage]
            width = out_width
            self.encoder.append(nn.ModuleList(stage))
        lowest = self.num_levels - 1
        self.middle = nn.ModuleList([block(lowest, width, width, True, True), block(lowest, width, width, True, False)])
        for level, out_width in reversed(list(enumerate(widths))):
            stage = [block(level, width, width, True, False, "up")] if level < lowest else []
            for _ in range(num_blocks + 1):
                stage.append(block(level, width + skips.pop(), out_width, True, level in attention_levels))
                width = out_width
            self.decoder.append(nn.ModuleList(stage))
        self.leave = MPConvolution(rank, width, in_channels, kernel=3)
        self.out_gain = nn.Parameter(torch.zeros(1))
        # The last to be made, so that all other weights of a seed are those of a network without text.
        self.text = TextInput(text, cond_width, MPTextTokens, MPTextVector)
        for each in list(self.modules()) if "tokens" in self.text.widths else ():
            if isinstance(each, UNetBlock) and each.attention is not None:
                each.add_text_attention(rank, cond_width)
        self.target = ScaleEmbedding(cond_width, channels // 2) if target else None

    def forward(self, u: TensorLike, t: TensorLike, cond: Conditioning) -> TensorLike:
        """Returns F ``(B, c, *s)`` for u ``(B, c, *s)`` and t ``(B,)``, a dual tensor for dual tensors."""
        self._check(value_of(u).shape)
        text = self.text(cond, value_of(u))
        c = self.condition(t, cond)
        masks = self.key_masks(cond.padding_mask)
        x = self.enter(self._input(u, cond))
        x = apply_linear(lambda v: v.to(value_of(u).dtype), x)  # the stream stays wide under autocast
        skips = [x]
        for blocks, mask in zip(self.encoder, masks, strict=True):
            assert isinstance(blocks, nn.ModuleList)
            for block in blocks:
                x = self.run_block(block, x, c, mask, *text)
                skips.append(x)
        for block in self.middle:
            x = self.run_block(block, x, c, masks[-1], *text)
        for blocks, mask in zip(self.decoder, reversed(masks), strict=True):
            assert isinstance(blocks, nn.ModuleList)
            for block in blocks:
                x = x if block.resample == "up" else mp_concatenate(x, skips.pop())
                x = self.run_block(block, x, c, mask, *text)
        x = self.leave(x, self.out_gain)
        return apply_linear(lambda v: v.to(value_of(u).dtype), x)

    def condition(self, t: TensorLike, cond: Conditioning) -> TensorLike:
        """Returns the conditioning vector ``(B, cond_width)`` of all blocks, in float32 under any precision."""
        c = self.time(t)
        if num := len(self.labels.num_classes):
            c = add(c, self.labels(cond.labels, value_of(c)))
            c = apply_linear(lambda v: v / math.sqrt(1 + num), c)
        if self.guidance is not None:
            c = add(c, self.guidance(cond.log_guidance(value_of(t))))
        if self.target is not None:
            c = add(c, self.target(target_time(cond, t)))
        return apply_linear(lambda v: v * SILU_GAIN, silu(self.text.add_vector(c, cond)))

    def _input(self, u: TensorLike, cond: Conditioning) -> TensorLike:
        """Returns u, zero at padding, EDM2's channel of ones, also zero at padding, and ``cond.concat``."""
        latent = value_of(u)
        if cond.padding_mask is None:
            mask = latent.new_ones(latent.shape[0], 1, *latent.shape[2:])
        else:
            mask = cond.padding_mask.to(latent.dtype)
            u = multiply(u, mask)
        inputs = [u, mask]
        if self.num_cond_channels:
            inputs.append(cond.channels(self.num_cond_channels, latent))
        return concatenate(inputs, dim=1)

    def key_masks(self, padding_mask: Tensor | None) -> list[Tensor | None]:
        """Returns, for each level, ``(B, L)``, true where a position stands for any entry that is not padding."""
        masks: list[Tensor | None] = [None] * self.num_levels
        if padding_mask is None:
            return masks
        fraction = (padding_mask > 0).float()
        for level in range(self.num_levels):
            fraction = value_of(halve(fraction)) if level else fraction
            seen = fraction.flatten(1) > 0
            masks[level] = seen | ~seen.any(-1, keepdim=True)  # a sample that is all padding attends to itself
        return masks

    def _check(self, shape: Sequence[int]) -> None:
        if len(shape) != 2 + self.rank or shape[1] != self.in_channels:
            raise ValueError(f"expected a latent (B, {self.in_channels}, *s) with {self.rank} axes, got {tuple(shape)}")
        step = 2 ** (self.num_levels - 1)
        if any(size % step for size in shape[2:]):
            raise ValueError(
                f"latent sizes {tuple(shape[2:])} must be multiples of {step}: there are {self.num_levels} levels"
            )

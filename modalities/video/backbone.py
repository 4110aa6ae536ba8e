"""The transformer over space and time: attention within frames and along time in turn, or over all tokens at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from einops import rearrange
from torch import Tensor, nn

from scm_media.nn.attention import SelfAttention
from scm_media.nn.dual import TensorLike, add, apply_linear, value_of
from scm_media.nn.embedding import rotary_angles
from scm_media.nn.normalization import AdaptiveDoubleNorm
from scm_media.nn.transformer import Transformer, TransformerBlock
from scm_media.parts import part

FRAMES_FIRST, PLACES_FIRST = "b (t n) c -> (b t) n c", "b (t n) c -> (b n) t c"


class SpaceTimeBlock(TransformerBlock):
    """Attends within each frame, then along time at each position, and applies a feed-forward layer.

    An adaptive double norm precedes each; each is added to the residual stream. A clip of one frame skips the attention
    along time. Source: Ho et al. 2022 (Video Diffusion Models, arXiv 2204.03458), section 3.
    """

    def __init__(self, width: int, num_heads: int, hidden: int, cond_width: int, dropout: float) -> None:
        super().__init__(width, num_heads, hidden, cond_width, dropout)
        self.time_norm = AdaptiveDoubleNorm(width, cond_width)
        self.time_attention = SelfAttention(width, num_heads)
        for parameter in self.time_attention.out.parameters():
            nn.init.zeros_(parameter)

    def forward(  # type: ignore[override]
        self,
        x: TensorLike,
        c: TensorLike,
        space: Tensor,
        time: Tensor,
        space_mask: Tensor | None,
        time_mask: Tensor | None,
    ) -> TensorLike:
        """Returns tokens ``(B, T · N, width)``, frame by frame; space ``(N, d)`` and time ``(T, d)``: their angles.

        space_mask ``(B · T, N)``, time_mask ``(B · N, T)``: true where a token may be attended to.
        """
        num_frames = len(time)
        x = add(x, _attend(FRAMES_FIRST, self.attention, self.attention_norm(x, c), space, space_mask, num_frames))
        if num_frames > 1:
            part = self.time_norm(x, c)
            x = add(x, _attend(PLACES_FIRST, self.time_attention, part, time, time_mask, num_frames))
        else:
            x = self._keep_gradients(x)
        return add(x, self.dropout(self.feed_forward(self.feed_forward_norm(x, c))))

    def _keep_gradients(self, x: TensorLike) -> TensorLike:
        """Returns x with a gradient of zero for unused parameters: data parallelism waits for every gradient."""
        if not (self.training and torch.is_grad_enabled()):
            return x
        unused = [*self.time_norm.parameters(), *self.time_attention.parameters()]
        return add(x, sum((parameter.sum() for parameter in unused), torch.zeros(()).to(unused[0])) * 0)


def _attend(
    pattern: str, attention: SelfAttention, x: TensorLike, angles: Tensor, mask: Tensor | None, num_frames: int
) -> TensorLike:
    """Attends among those tokens ``(B, T · N, width)`` that a pattern groups."""
    there, back = pattern.split(" -> ")
    num_places = value_of(x).shape[1] // num_frames
    sizes = {"t": num_frames, "n": num_places}
    apart = apply_linear(lambda v: rearrange(v, pattern, **sizes), x)
    return apply_linear(lambda v: rearrange(v, f"{back} -> {there}", **sizes), attention(apart, angles, mask))


@part("backbone")
class SpaceTimeTransformer(Transformer):
    """Computes F(u, t, cond) for latents ``(B, c, T, H, W)`` of videos with any number of frames.

    attention: "factorised", within frames and along time in turn, or "full", over all tokens at once, which costs
    more with every frame. Positions are rotary along each axis: of factorised attention two within a frame and one
    along time, of full attention all three at once. patch: along frames, height and width; along frames 1 where
    pictures are clips of one frame. The other keys are ``Transformer``'s; the frame rate is a scalar label like any
    other (``fps``). Raises ValueError for another attention.
    """

    def __init__(
        self,
        in_channels: int,
        patch: int | Sequence[int] = (1, 2, 2),
        width: int = 192,
        depth: int = 6,
        num_heads: int = 6,
        attention: Literal["factorised", "full"] = "factorised",
        labels: Mapping[str, int] | None = None,
        mlp_ratio: float = 4.0,
        dropout: float = 0.0,
        num_cond_channels: int = 0,
        guidance: bool = False,
        label_units: Mapping[str, float] | None = None,
        skip: bool = False,
    ) -> None:
        if attention not in ("factorised", "full"):
            raise ValueError(f"backbone.attention must be factorised or full, got {attention!r}")
        self.factorised = attention == "factorised"
        super().__init__(
            in_channels,
            3,
            patch,
            width,
            depth,
            num_heads,
            labels=labels,
            mlp_ratio=mlp_ratio,
            dropout=dropout,
            num_cond_channels=num_cond_channels,
            guidance=guidance,
            label_units=label_units,
            skip=skip,
        )

    def make_block(self, *arguments: Any) -> nn.Module:
        """Returns one block of this network."""
        return SpaceTimeBlock(*arguments) if self.factorised else super().make_block(*arguments)

    def block_inputs(self, grid: Sequence[int], padding_mask: Tensor | None, device: torch.device) -> tuple[Any, ...]:
        """Returns the inputs of every block beside x and c: rotary angles and key masks of space and of time."""
        if not self.factorised:
            return super().block_inputs(grid, padding_mask, device)
        space, time = (rotary_angles(axes, self.head_width, device) for axes in (grid[1:], grid[:1]))
        if padding_mask is None:
            return space, time, None, None
        masks = (
            rearrange(padding_mask[..., None], pattern, t=grid[0])[..., 0] for pattern in (FRAMES_FIRST, PLACES_FIRST)
        )
        return space, time, *(_open_empty_rows(mask) for mask in masks)


def _open_empty_rows(mask: Tensor) -> Tensor:
    """Returns the mask with rows of zeros turned into ones: groups of padding alone attend to themselves."""
    return mask | ~mask.any(-1, keepdim=True)

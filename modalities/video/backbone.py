"""The transformer over space and time: attention within frames and along time in turn, or over all tokens at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from einops import rearrange
from torch import Tensor, nn

from scm_media.nn.attention import SelfAttention
from scm_media.nn.context_parallel import exchange, split
from scm_media.nn.dual import TensorLike, add, apply_linear, value_of
from scm_media.nn.embedding import rotary_angles
from scm_media.nn.normalization import AdaptiveDoubleNorm
from scm_media.nn.text import Text
from scm_media.nn.transformer import Transformer, TransformerBlock
from scm_media.parts import part

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

FRAMES_FIRST, PLACES_FIRST = "b (t n) c -> (b t) n c", "b (t n) c -> (b n) t c"


class SpaceTimeBlock(TransformerBlock):
    """Attends within each frame, then along time at each position, and applies a feed-forward layer.

    An adaptive double norm precedes each; each is added to the residual stream. A clip of one frame skips the attention
    along time; attention to a text comes before the feed-forward layer. Source: Ho et al. 2022 (Video Diffusion Models,
    arXiv 2204.03458), section 3.
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
        group: ProcessGroup | None = None,
        text: Text | None = None,
    ) -> TensorLike:
        """Returns tokens ``(B, T · N, width)``, frame by frame; space ``(N, d)`` and time ``(T, d)``: their angles.

        space_mask ``(B · T, N)``, time_mask ``(B · N, T)``: true where a token may be attended to. group: the ranks
        that share the frames of each clip: x and space_mask have this rank's frames, time_mask its places. text: see
        ``TransformerBlock``.
        """
        num_frames, num_places = len(time), len(space)
        num_own = value_of(x).shape[1] // num_places
        x = add(x, _attend(FRAMES_FIRST, self.attention, self.attention_norm(x, c), space, space_mask, num_own))
        if num_frames > 1:
            places = _to_places(self.time_norm(x, c), num_frames, num_places, group)
            attended = _attend(PLACES_FIRST, self.time_attention, places, time, time_mask, num_frames)
            x = add(x, _to_frames(attended, num_frames, num_places, group))
        else:
            x = self._keep_gradients(x)
        x = self.attend_to_text(x, c, text)
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


def _to_places(x: TensorLike, num_frames: int, num_places: int, group: ProcessGroup | None) -> TensorLike:
    """Returns this rank's places of all frames ``(B, T · n, width)``, of its frames ``(B, t · N, width)``."""
    if group is None:
        return x
    clip = apply_linear(lambda v: v.unflatten(1, (-1, num_places)), x)
    return apply_linear(lambda v: v.flatten(1, 2), exchange(clip, 2, 1, num_frames, group))


def _to_frames(x: TensorLike, num_frames: int, num_places: int, group: ProcessGroup | None) -> TensorLike:
    """Returns this rank's frames ``(B, t · N, width)``, of its places of all frames ``(B, T · n, width)``."""
    if group is None:
        return x
    clip = apply_linear(lambda v: v.unflatten(1, (num_frames, -1)), x)
    return apply_linear(lambda v: v.flatten(1, 2), exchange(clip, 1, 2, num_places, group))


@part("backbone")
class SpaceTimeTransformer(Transformer):
    """Computes F(u, t, cond) for latents ``(B, c, T, H, W)`` of videos with any number of frames.

    attention: "factorised", within frames and along time in turn, or "full", over all tokens at once, which costs
    more with every frame. Positions are rotary along each axis: of factorised attention two within a frame and one
    along time, of full attention all three at once. patch: along frames, height and width; along frames 1 where
    pictures are clips of one frame. The other keys are ``Transformer``'s; the frame rate is a scalar label like any
    other (``fps``). Raises ValueError for another attention.

    Within ``context_parallel`` the ranks share the tokens of full attention as ``Transformer`` does. Of factorised
    attention they share the frames of a clip, and the places within a frame for attention along time; any number of
    heads will do, and ranks beyond the number of frames compute nothing of use.
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
        text: Mapping[str, int] | None = None,
        target: bool = False,
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
            text=text,
            target=target,
        )

    def make_block(self, *arguments: Any) -> nn.Module:
        """Returns one block of this network."""
        return SpaceTimeBlock(*arguments) if self.factorised else super().make_block(*arguments)

    def tokens_together(self, grid: Sequence[int]) -> int:
        """Returns the number of tokens of a frame where attention runs within frames, else 1."""
        return grid[1] * grid[2] if self.factorised else super().tokens_together(grid)

    def block_inputs(
        self,
        grid: Sequence[int],
        padding_mask: Tensor | None,
        device: torch.device,
        group: ProcessGroup | None = None,
    ) -> tuple[Any, ...]:
        """Returns the inputs of every block beside x and c: rotary angles, key masks of space and of time, the group.

        Where ranks share the frames of a clip, the masks are those of this rank's frames, and of its places.
        """
        if not self.factorised:
            return super().block_inputs(grid, padding_mask, device, group)
        space, time = (rotary_angles(axes, self.head_width, device) for axes in (grid[1:], grid[:1]))
        if padding_mask is None:
            return space, time, None, None, group
        clip = padding_mask.unflatten(1, (grid[0], -1))
        frames = value_of(split(clip, 1, group)).flatten(0, 1)
        places = value_of(split(clip, 2, group)).transpose(1, 2).flatten(0, 1)
        return space, time, _open_empty_rows(frames), _open_empty_rows(places), group


def _open_empty_rows(mask: Tensor) -> Tensor:
    """Returns the mask with rows of zeros turned into ones: groups of padding alone attend to themselves."""
    return mask | ~mask.any(-1, keepdim=True)

"""Text as an input of a backbone: tokens for cross-attention, and a vector that is added to the conditioning vector.

Texts do not depend on the time, so that nothing here has a tangent. A sample without text, whose caption was dropped or
never given, has learned values in their places: a null token, the only one that it attends to, and a null vector.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from scm_media.conditioning import Conditioning
from scm_media.nn.dual import Linear, TensorLike, add, full_precision, value_of
from scm_media.nn.magnitude import Gains, MPEmbedding, MPLinear
from scm_media.nn.normalization import rms_normalize

WAYS = {"tokens": "(B, L, d)", "pooled": "(B, p)"}
"""The ways in which a backbone takes text, by the field of ``Conditioning``, with the field's shape."""

Text = tuple[Tensor, Tensor]
"""Tokens ``(B, 1 + L, width)`` and a mask ``(B, 1 + L)``, true where a token may be attended to; null comes first."""


class TextTokens(nn.Module):
    """Normalises and projects the token embeddings of a text, once for all blocks, and puts a null token before them.

    linear, table: functions of (text_width, width) and of (1, width) that make the two layers.
    """

    def __init__(
        self,
        text_width: int,
        width: int,
        linear: Callable[[int, int], nn.Module] = Linear,
        table: Callable[[int, int], nn.Module] = nn.Embedding,
    ) -> None:
        super().__init__()
        self.text_width = text_width
        self.project, self.null = linear(text_width, width), table(1, width)

    def forward(self, cond: Conditioning, like: Tensor) -> Text:
        """Returns tokens and mask for samples ``(B, …)``: the null token is visible where no other one is."""
        num, device = like.shape[0], like.device
        if cond.tokens is None:  # the layers run all the same: data parallelism waits for every gradient
            tokens = like.new_zeros(num, 1, self.text_width)
            mask = torch.zeros(num, 1, dtype=torch.bool, device=device)
        else:
            tokens = cond.tokens
            given = torch.ones(tokens.shape[:2], dtype=torch.bool, device=device)
            mask = given if cond.token_mask is None else cond.token_mask
        tokens = torch.where(mask[:, :, None], tokens, 0.0).to(like.dtype)  # padding may be anything, NaN too
        projected = self.project(value_of(rms_normalize(tokens)).to(like.dtype))
        null = self.null(torch.zeros(num, 1, dtype=torch.long, device=device)).to(projected.dtype)
        return torch.cat([null, projected], 1), torch.cat([~mask.any(-1, keepdim=True), mask], 1)


class TextVector(nn.Module):
    """Normalises and projects the pooled embedding of a text; both the projection and the null vector start at zero."""

    def __init__(self, text_width: int, width: int) -> None:
        super().__init__()
        self.text_width = text_width
        self.project, self.null = self.make_layers(text_width, width)

    def make_layers(self, text_width: int, width: int) -> tuple[nn.Module, nn.Module]:
        """Returns the projection, and the table of the null vector."""
        project, null = Linear(text_width, width), nn.Embedding(1, width)
        for parameter in (*project.parameters(), *null.parameters()):
            nn.init.zeros_(parameter)
        return project, null

    @torch.no_grad()
    def start_at(self, vector: Tensor) -> None:
        """Gives every text, and none, the same vector ``(width,)``."""
        assert isinstance(self.project, Linear) and isinstance(self.null, nn.Embedding)
        self.project.weight.zero_()
        self.project.bias.copy_(vector)
        self.null.weight.copy_(vector)

    def forward(self, cond: Conditioning, like: Tensor) -> Tensor:
        """Returns ``(B, width)`` in the type of ``like`` ``(B, …)``, in float32 or wider under any precision."""
        num = like.shape[0]
        given = _has_text(cond, num, like.device)
        pooled = like.new_zeros(num, self.text_width) if cond.pooled is None else cond.pooled
        pooled = torch.where(given[:, None], pooled, 0.0).to(like.dtype)
        with full_precision(like):
            projected = self.project(rms_normalize(pooled))
            null = self.null(torch.zeros(num, dtype=torch.long, device=like.device))
            return torch.where(given[:, None], projected, null)


def _has_text(cond: Conditioning, num: int, device: torch.device) -> Tensor:
    """Returns ``(B,)``, true where a sample has a pooled embedding that is not dropped."""
    if cond.pooled is None or cond.token_mask is None:
        return torch.full((num,), cond.pooled is not None, device=device)
    return cond.token_mask.any(-1)


class MPTextTokens(TextTokens):
    """The tokens of a text by magnitude-preserving layers, of unit variance."""

    def __init__(self, text_width: int, width: int) -> None:
        super().__init__(text_width, width, MPLinear, MPEmbedding)


class MPTextVector(Gains, TextVector):
    """The vector of a text by magnitude-preserving layers, times a gain that starts at 0."""

    def __init__(self, text_width: int, width: int) -> None:
        super().__init__(text_width, width)
        self.gain = nn.Parameter(torch.zeros(1))

    def make_layers(self, text_width: int, width: int) -> tuple[nn.Module, nn.Module]:
        """Returns the projection, and the table of the null vector."""
        return MPLinear(text_width, width), MPEmbedding(1, width)

    def start_at(self, vector: Tensor) -> None:
        """Changes nothing: without a bias, texts have no vector in common."""

    def forward(self, cond: Conditioning, like: Tensor) -> Tensor:
        """Returns ``(B, width)`` in the type of ``like`` ``(B, …)``."""
        return super().forward(cond, like) * self.gain


class TextInput(nn.Module):
    """The text of a backbone, as tokens, as a vector, or both; a backbone without text has an empty one.

    widths: the width of the text's embeddings for each way (``tokens``, ``pooled``) that the backbone takes. width: of
    the tokens and of the vector that it gets. tokens, pooled: functions of (text width, width) that make the layers.
    Raises ValueError for other ways and for widths that are not positive.
    """

    def __init__(
        self,
        widths: Mapping[str, int] | None,
        width: int,
        tokens: Callable[[int, int], TextTokens] = TextTokens,
        pooled: Callable[[int, int], TextVector] = TextVector,
    ) -> None:
        super().__init__()
        self.widths = dict(widths or {})
        if wrong := [f"{name}: {size}" for name, size in self.widths.items() if name not in WAYS or size < 1]:
            raise ValueError(
                f"backbone.text takes the keys {' and '.join(WAYS)}, each with the width of such embeddings, got "
                f"{', '.join(wrong)}; leave out what the backbone does not take"
            )
        self.tokens = tokens(self.widths["tokens"], width) if "tokens" in self.widths else None
        self.pooled = pooled(self.widths["pooled"], width) if "pooled" in self.widths else None

    def forward(self, cond: Conditioning, like: Tensor) -> tuple[Text, ...]:
        """Returns the last input of all blocks for samples ``(B, …)``: tokens and mask; none where they take no tokens.

        Raises ValueError for text that the backbone does not take, and for embeddings of other widths or shapes.
        """
        self._check(cond)
        return () if self.tokens is None else (self.tokens(cond, like),)

    def add_vector(self, c: TensorLike, cond: Conditioning) -> TensorLike:
        """Returns the conditioning vector c ``(B, width)`` with the vector of the text; c itself without one."""
        return c if self.pooled is None else add(c, self.pooled(cond, value_of(c)))

    def _check(self, cond: Conditioning) -> None:
        fields = {"tokens": cond.tokens, "pooled": cond.pooled}
        given = {name: tensor for name, tensor in fields.items() if tensor is not None}
        if given and not given.keys() & self.widths.keys():
            raise ValueError(
                f"the conditioning has text as {' and '.join(given)}, and this backbone takes "
                f"{' and '.join(self.widths) or 'no text'}: build it with text={{name: width}}, or leave the text out"
            )
        for name in given.keys() & self.widths.keys():
            shape, width = tuple(given[name].shape), self.widths[name]
            if len(shape) != WAYS[name].count(",") + 1:
                raise ValueError(f"Conditioning.{name} must have the shape {WAYS[name]}, got {shape}")
            if shape[-1] != width:
                raise ValueError(
                    f"Conditioning.{name} has embeddings of width {shape[-1]}, and this backbone was built for width "
                    f"{width}: take the text encoder that it was built for, or set backbone.text.{name}={shape[-1]}"
                )
        mask = cond.token_mask
        if (
            "tokens" in self.widths
            and cond.tokens is not None
            and mask is not None
            and mask.shape != cond.tokens.shape[:2]
        ):
            raise ValueError(
                f"Conditioning.token_mask {tuple(mask.shape)} must have an entry for each of the tokens "
                f"{tuple(cond.tokens.shape[:2])}"
            )


def text_widths(network: nn.Module) -> dict[str, int]:
    """Returns the widths of the text embeddings that a network, or one that it wraps, takes; empty for none."""
    return next((dict(each.widths) for each in network.modules() if isinstance(each, TextInput)), {})


def random_text(network: nn.Module, num: int, num_tokens: int = 8, seed: int = 0) -> Conditioning:
    """Returns conditioning with random embeddings for ``num`` samples, of the widths that a network takes.

    The last of several samples has no text. Conditioning of a network without text is empty.
    """
    generator, widths = torch.Generator().manual_seed(seed), text_widths(network)
    shapes = {"tokens": (num, num_tokens), "pooled": (num,)}
    given: dict[str, Any] = {
        name: torch.randn(*shapes[name], width, generator=generator) for name, width in sorted(widths.items())
    }
    return Conditioning(**given).drop(torch.arange(num) == max(1, num - 1))

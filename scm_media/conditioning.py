"""The conditioning of a network: labels, text, a mask with the given part of the latent, and per-frame actions.

A sample ``(C, *S)`` may have k numbers for each position along the first axis of S, its actions ``(k, n)``. A position
of the latent stands for a group of these positions and gets the actions of its group as channels.

A network that continues, animates or fills samples gets the given part of the latent and its mask as channels, and is
trained with random masks (``scm_media.masks``). Source: Voleti et al. 2022 (MCVD, arXiv 2205.09853), who mask the past
and the future of a clip at random; the channels are those of latent inpainting (Rombach et al. 2022, arXiv
2112.10752). Losses leave the given part out (Harvey et al. 2022, arXiv 2205.11495).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

NO_LABEL = -1
"""The value of a categorical label that is not given (classifier-free guidance replaces labels by it)."""


@dataclass(frozen=True)
class Conditioning:
    """The inputs of a backbone beside the latent and the time; every field is batch first and may be absent.

    labels: name to ``(B,)`` int64 (categorical, ``NO_LABEL`` = not given) or float32 (scalar, NaN = not given).
    tokens, token_mask: text embeddings ``(B, L, d)``, and ``(B, L)`` bool, true where there is a token; a sample whose
    mask is false everywhere has no text. Without tokens the mask is ``(B, 1)`` and says who has a pooled embedding.
    pooled: vectors ``(B, d)`` of the whole text, or of a clip's length, which networks of others take.
    concat: channels ``(B, k, *s)`` that a network concatenates to its input: the given latent and its mask first, then
    the actions (``ConditioningLayout``).
    padding_mask: ``(B, 1, *s)``, one where the latent is not padding.
    guidance: ``(B,)`` float32, the guidance scale of a student that takes it as an input.
    mask: ``(B, 1, *s)``, one where the latent is given; losses leave these entries out.
    target: ``(B,)``, the time in radians that a flow map goes to, at most t; None is 0, the data. It may be a
    ``DualTensor``, whose tangent ``value_and_tangent`` then follows too.
    """

    labels: Mapping[str, Tensor] = field(default_factory=dict)
    tokens: Tensor | None = None
    token_mask: Tensor | None = None
    pooled: Tensor | None = None
    concat: Tensor | None = None
    padding_mask: Tensor | None = None
    guidance: Tensor | None = None
    mask: Tensor | None = None
    target: Any = None

    @property
    def loss_mask(self) -> Tensor | None:
        """Returns ``(B, 1, *s)``, one where losses are taken: neither padding nor given; None for everywhere."""
        if self.mask is None:
            return self.padding_mask
        free = 1 - self.mask
        return free if self.padding_mask is None else free * self.padding_mask

    @property
    def label(self) -> Tensor | None:
        """Returns the only label ``(B,)``, None without labels; raises ValueError for several."""
        if len(self.labels) > 1:
            raise ValueError(f"one label is expected, got {', '.join(self.labels)}: take them from Conditioning.labels")
        return next(iter(self.labels.values()), None)

    def channels(self, num: int, latent: Tensor) -> Tensor:
        """Returns ``concat``, or ``num`` channels of zeros beside a latent ``(B, c, *s)`` where it is None."""
        return latent.new_zeros(latent.shape[0], num, *latent.shape[2:]) if self.concat is None else self.concat

    def log_guidance(self, t: Tensor) -> Tensor:
        """Returns the logarithm of the guidance scale ``(B,)`` in the type of t ``(B,)``; zero without a scale."""
        return torch.zeros_like(t) if self.guidance is None else torch.log(self.guidance.to(t))

    def _map(self, function: Callable[[Tensor], Tensor]) -> Conditioning:
        changed: dict[str, Any] = {"labels": {name: function(label) for name, label in self.labels.items()}}
        for entry in fields(self)[1:]:
            value = getattr(self, entry.name)
            changed[entry.name] = None if value is None else function(value)
        return replace(self, **changed)

    def to(self, device: torch.device | str) -> Conditioning:
        """Returns the same conditioning on another device."""
        return self._map(lambda tensor: tensor.to(device))

    def repeat(self, num: int) -> Conditioning:
        """Returns the whole batch ``num`` times, block after block: ``(num * B, ...)``."""
        return self._map(lambda tensor: torch.cat([tensor] * num))

    def __getitem__(self, index: slice | Tensor) -> Conditioning:
        """Returns the conditioning of some samples of the batch; raises TypeError for an integer."""
        if isinstance(index, int):
            raise TypeError("index a Conditioning with a slice or a tensor, so that it stays batch first")
        return self._map(lambda tensor: tensor[index])

    def drop(self, where: Tensor) -> Conditioning:
        """Returns the conditioning without labels and text where ``where`` ``(B,)`` is true; all other fields stay.

        A sample without text has a ``token_mask`` that is false everywhere, ``(B, 1)`` where there are no tokens.
        """
        labels = {
            name: torch.where(where, torch.nan if label.is_floating_point() else NO_LABEL, label)
            for name, label in self.labels.items()
        }
        mask = self.token_mask
        if self.tokens is not None or self.pooled is not None:
            shape = (len(where), 1) if self.tokens is None else self.tokens.shape[:2]
            mask = torch.ones(shape, dtype=torch.bool, device=where.device) if mask is None else mask
            mask = mask & ~where[:, None]
        return replace(self, labels=labels, token_mask=mask)


@dataclass(frozen=True)
class FrameGrouping:
    """The number of positions along the first axis of a sample that one position of its latent stands for.

    size: positions in a group. causal_first: whether the first position is a group of its own, as in a causal
    autoencoder: 1 + size · j positions of the sample are 1 + j of the latent.
    """

    size: int
    causal_first: bool

    @classmethod
    def of(cls, autoencoder: Any, sample_shape: Sequence[int]) -> FrameGrouping:
        """Returns the grouping of an ``Autoencoder``, found from its shapes and masks for samples ``(C, *S)``.

        Raises ValueError for an autoencoder whose latents are not equal groups.
        """
        num, num_latent = sample_shape[1], autoencoder.latent_shape(sample_shape)[1]
        first = torch.zeros(1, 1, *sample_shape[1:])
        first[:, :, 0] = 1
        causal_first = bool((autoencoder.latent_mask(first)[:, :, 0] >= 1).all())
        if num == num_latent:
            return cls(1, causal_first)
        left, groups = num - causal_first, num_latent - causal_first
        if groups < 1 or left % groups:
            raise ValueError(
                f"{type(autoencoder).__name__} turns {num} positions along the first axis of a sample into "
                f"{num_latent}, which are not equal groups, so actions have no place beside its latents: set "
                "data.actions=null"
            )
        return cls(left // groups, causal_first)

    def lay_out(self, actions: Tensor, sizes: Sequence[int]) -> Tensor:
        """Returns channels ``(B, size · k, *s)`` beside latents ``(B, c, *s)``, s = sizes, for actions ``(B, k, n)``.

        Channel j · k + i holds number i of the j-th position of a group, the same across the other axes. The actions
        of a causal first position are the last of its group; the others are zero, as if the sample had begun earlier.
        Raises ValueError for actions of another length.
        """
        if self.causal_first:
            actions = functional.pad(actions, (self.size - 1, 0))
        if actions.shape[-1] != self.size * sizes[0]:
            raise ValueError(
                f"got actions of {actions.shape[-1] - self.causal_first * (self.size - 1)} positions for a latent of "
                f"{sizes[0]}, each of which stands for {self.size}{' but the first' if self.causal_first else ''}"
            )
        grouped = actions.unflatten(-1, (sizes[0], self.size)).permute(0, 3, 1, 2).flatten(1, 2)
        across = len(sizes) - 1
        return grouped.reshape(*grouped.shape, *[1] * across).expand(*grouped.shape, *sizes[1:])


def condition_on_mask(cond: Conditioning, latent: Tensor, mask: Tensor, sigma_data: float) -> Conditioning:
    """Returns the conditioning of samples whose latent ``(B, c, *s)`` is given where mask ``(B or 1, 1, *s)`` is one.

    ``concat`` begins with c + 1 channels: the given latent at unit standard deviation, zero elsewhere, and the mask.
    Channels that it had before come after them.
    """
    mask = mask.expand(latent.shape[0], *mask.shape[1:])
    channels = [latent * mask / sigma_data, mask.to(latent.dtype)]
    if cond.concat is not None:
        channels.append(cond.concat)
    return replace(cond, concat=torch.cat(channels, dim=1), mask=mask)


def condition_on_empty_mask(cond: Conditioning, num_mask_channels: int) -> Conditioning:
    """Returns the conditioning of samples of which nothing is given: zeros in the channels of latent and mask.

    A ``cond`` without ``concat`` is returned unchanged, because networks take zeros for a ``concat`` that is None.
    """
    if cond.concat is None or not num_mask_channels:
        return cond
    zeros = torch.zeros_like(cond.concat[:, :1]).expand(-1, num_mask_channels, *[-1] * (cond.concat.ndim - 2))
    return replace(cond, concat=torch.cat([zeros, cond.concat], dim=1))


def condition_on_actions(
    cond: Conditioning, actions: Tensor | None, grouping: FrameGrouping | None, sizes: Sequence[int]
) -> Conditioning:
    """Returns the conditioning with actions ``(B, k, n)`` beside latents of these sizes; unchanged without actions."""
    if actions is None or grouping is None:
        return cond
    return replace(cond, concat=grouping.lay_out(actions, sizes))


@dataclass(frozen=True)
class ConditioningLayout:
    """The channels of ``Conditioning.concat`` that a network was built for.

    num_mask_channels: channels of the given latent and its mask, 0 for a network that takes neither. grouping: how
    actions lie beside the latent, None for a network without actions.
    """

    sigma_data: float
    num_mask_channels: int = 0
    grouping: FrameGrouping | None = None

    def num_channels(self, num_actions: int) -> int:
        """Returns the number of channels of ``concat`` for actions of so many numbers a frame."""
        return self.num_mask_channels + (0 if self.grouping is None else self.grouping.size * num_actions)

    def assemble(
        self,
        cond: Conditioning,
        sizes: Sequence[int],
        actions: Tensor | None = None,
        latent: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Conditioning:
        """Returns ``cond`` (labels, padding, guidance) with the channels beside latents ``(B, c, *s)``, s = sizes.

        actions: ``(B, k, n)``. latent, mask: the given latent ``(B, c, *s)`` and its mask ``(B or 1, 1, *s)``; they are
        left out for a network that takes no mask.
        """
        cond = condition_on_actions(cond, actions, self.grouping, sizes)
        if not self.num_mask_channels:
            return cond
        if latent is None or mask is None:
            return condition_on_empty_mask(cond, self.num_mask_channels)
        return condition_on_mask(cond, latent, mask, self.sigma_data)

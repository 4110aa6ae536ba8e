"""Rows of numbers that go along with a sample (the actions of each frame), and how a network is told them.

A sample ``(C, *S)`` may have one row of k numbers for each place along the first axis of S: ``(k, n)``. A place of the
latent stands for a group of these places, and is told the rows of its group as channels, the same all across.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from scm_media import weights
from scm_media.interfaces import Autoencoder, Conditioning

ACTIONS, LABEL = "actions", "label."


@dataclass(frozen=True)
class FrameGrouping:
    """Which places along the first axis of a sample one place of its latent stands for.

    size: how many places are one of the latent. causal_first: whether the first of them is one by itself, as a causal
    autoencoder has it: 1 + size · j places are 1 + j of the latent.
    """

    size: int
    causal_first: bool

    @classmethod
    def of(cls, autoencoder: Autoencoder, sample_shape: Sequence[int]) -> FrameGrouping:
        """The grouping that an autoencoder has, found by its shapes and masks on samples ``(C, *S)``.

        ValueError for an autoencoder whose latents are no equal groups.
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
                f"{num} places along the first axis of a sample are {num_latent} of {type(autoencoder).__name__}'s "
                "latents, which are no equal groups, so that rows cannot be laid beside them: set data.actions=null"
            )
        return cls(left // groups, causal_first)

    def lay_out(self, rows: Tensor, places: Sequence[int]) -> Tensor:
        """Channels ``(B, size · k, *s)`` beside latents ``(B, c, *s)``, s = places, for rows ``(B, k, n)``.

        Channel j · k + i is number i of the j-th place of a group. A first place that is alone is the last of its
        group, the others are zero, as if the sample had begun earlier.
        """
        if self.causal_first:
            rows = functional.pad(rows, (self.size - 1, 0))
        if rows.shape[-1] != self.size * places[0]:
            raise ValueError(
                f"{rows.shape[-1] - self.causal_first * (self.size - 1)} rows cannot lie beside {places[0]} places of "
                f"the latent, each of which stands for {self.size}{' but the first' if self.causal_first else ''}"
            )
        grouped = rows.unflatten(-1, (places[0], self.size)).permute(0, 3, 1, 2).flatten(1, 2)
        across = len(places) - 1
        return grouped.reshape(*grouped.shape, *[1] * across).expand(*grouped.shape, *places[1:])


def condition_on_actions(
    cond: Conditioning, rows: Tensor | None, grouping: FrameGrouping | None, places: Sequence[int]
) -> Conditioning:
    """The conditioning of clips with these rows ``(B, k, n)`` beside latents of ``places``; as it is without rows."""
    if rows is None or grouping is None:
        return cond
    return replace(cond, concat=grouping.lay_out(rows, places))


@dataclass(frozen=True)
class ActionBank:
    """Rows ``(N, k, n)`` of some examples, and the class numbers ``(N,)`` of each of their labels that has classes."""

    rows: Tensor
    labels: Mapping[str, Tensor]

    def save(self, path: Path) -> None:
        """Writes one safetensors file."""
        state = {ACTIONS: self.rows, **{LABEL + name: numbers for name, numbers in self.labels.items()}}
        weights.save(path, state, {"_target_": f"{__name__}.ActionBank"})

    @classmethod
    def load(cls, path: Path) -> ActionBank:
        """What ``save`` wrote; ValueError for a file that is missing, cut short or another thing."""
        state = weights.read(path).state
        if ACTIONS not in state:
            raise ValueError(f"{path} holds no {ACTIONS}, so it is no action bank; export the model again")
        labels = {name.removeprefix(LABEL): state[name] for name in state if name.startswith(LABEL)}
        rows = state[ACTIONS]
        whole = rows.ndim == 3 and rows.numel() > 0 and rows.is_floating_point() and bool(torch.isfinite(rows).all())
        if not whole or any(numbers.shape != rows.shape[:1] for numbers in labels.values()):
            raise ValueError(f"{path} holds no rows (N, k, n) of finite numbers with N labels; export the model again")
        return cls(rows, labels)

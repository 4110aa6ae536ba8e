"""One example, and a batch of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from scm_media.conditioning import Conditioning
from scm_media.trajectories import Trajectory


@dataclass(frozen=True)
class Example:
    """One sample ``(C, *S)``, float32 in [-1, 1], with its labels.

    labels: name to class number, or to a float for a scalar label. source: the name of the file, or of the example.
    padding_mask: ``(1, *S)``, one where the sample is not padding; None where all of it is to be learned.
    actions: ``(k, n)`` float32, k numbers for each of the n frames along the first axis of S; None without actions.
    skipped: the files that could not be read, with what is wrong, in whose place
    the example was read.
    """

    sample: Tensor
    labels: Mapping[str, int | float] = field(default_factory=dict)
    source: str = ""
    padding_mask: Tensor | None = None
    actions: Tensor | None = None
    skipped: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Batch:
    """Samples ``(B, C, *S)`` and their labels: ``(B,)`` int64 for classes, float32 for scalars.

    encoded: True where the samples are latents ``(B, c, *s)`` already. padding_mask: ``(B, 1, *S)``, or of latents
    ``(B, 1, *s)``, one where a sample is not padding; None without padding. actions: ``(B, k, n)``, for the frames of
    samples, of latents too. skipped: those of all examples. trajectory: points of a teacher's trajectories that end in
    the samples, for losses that are trained on these.
    """

    sample: Tensor
    labels: Mapping[str, Tensor] = field(default_factory=dict)
    encoded: bool = False
    padding_mask: Tensor | None = None
    actions: Tensor | None = None
    skipped: tuple[tuple[str, str], ...] = ()
    trajectory: Trajectory | None = None

    def to(self, device: torch.device | str) -> Batch:
        """Returns the same batch on another device."""
        labels = {name: label.to(device, non_blocking=True) for name, label in self.labels.items()}
        padding_mask, actions = (
            None if tensor is None else tensor.to(device, non_blocking=True)
            for tensor in (self.padding_mask, self.actions)
        )
        sample = self.sample.to(device, non_blocking=True)
        trajectory = None if self.trajectory is None else self.trajectory.to(device)
        return replace(
            self, sample=sample, labels=labels, padding_mask=padding_mask, actions=actions, trajectory=trajectory
        )

    def conditioning(self, latent_mask: Callable[[Tensor], Tensor] | None = None) -> Conditioning:
        """Returns the labels and, given ``latent_mask``, the padding mask of the latents.

        latent_mask: the autoencoder's method, from masks of samples to masks of latents.
        """
        padding_mask = None
        if self.padding_mask is not None and latent_mask is not None:
            padding_mask = self.padding_mask if self.encoded else latent_mask(self.padding_mask)
        return Conditioning(labels=dict(self.labels), padding_mask=padding_mask)


def collate(examples: Sequence[Example]) -> Batch:
    """Returns the batch of examples that have the same labels."""
    labels = {}
    for name, first in examples[0].labels.items():
        dtype = torch.float32 if isinstance(first, float) else torch.int64
        labels[name] = torch.tensor([example.labels[name] for example in examples], dtype=dtype)
    actions = [example.actions for example in examples if example.actions is not None]
    masks = [example.padding_mask for example in examples if example.padding_mask is not None]
    assert len(actions) in (0, len(examples)), "every example has actions, or none"
    assert len(masks) in (0, len(examples)), "every example has a padding mask, or none"
    if len(shapes := {tuple(example.sample.shape) for example in examples}) > 1:
        raise ValueError(
            f"samples of the shapes {', '.join(map(str, sorted(shapes)))} cannot be one batch; figures and latents, "
            "which take examples in turn, do not work with modality.buckets"
        )
    return Batch(
        sample=torch.stack([example.sample for example in examples]),
        labels=labels,
        padding_mask=torch.stack(masks) if masks else None,
        actions=torch.stack(actions) if actions else None,
        skipped=tuple(pair for example in examples for pair in example.skipped),
    )

"""One example, a batch of them, and what a dataset must offer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import repeat
from typing import Protocol

import torch
from torch import Tensor

from scm_media.conditioning import Conditioning
from scm_media.interfaces import Modality


@dataclass(frozen=True)
class Example:
    """One sample ``(C, *S)``, float32 in [-1, 1], with what is known of it.

    labels: name to class number, or to a float for a scalar label. source: the file, or what stands for it.
    padding_mask: ``(1, *S)``, one where the sample is no padding; None where all of it is to be learned.
    actions: ``(k, n)`` float32, k numbers for each of the n places along the first axis of S (the actions of each
    frame); None where there are none. lost: the files that could not be read, with what is wrong, whose place the
    example has taken.
    """

    sample: Tensor
    labels: Mapping[str, int | float] = field(default_factory=dict)
    caption: str | None = None
    source: str = ""
    padding_mask: Tensor | None = None
    actions: Tensor | None = None
    lost: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Batch:
    """Samples ``(B, C, *S)`` and their labels: ``(B,)`` int64 for classes, float32 for scalars.

    encoded: the samples are latents ``(B, c, *s)`` already. padding_mask: ``(B, 1, *S)``, of latents ``(B, 1, *s)``,
    one where a sample is no padding; None where there is none. actions: ``(B, k, n)``, the rows of numbers along the
    first axis of S, of latents too; ``actions.condition_on_actions`` lays them out beside a latent. lost: as of the
    examples.
    """

    sample: Tensor
    labels: Mapping[str, Tensor] = field(default_factory=dict)
    captions: list[str] | None = None
    encoded: bool = False
    padding_mask: Tensor | None = None
    actions: Tensor | None = None
    lost: tuple[tuple[str, str], ...] = ()

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        labels = {name: label.to(device, non_blocking=True) for name, label in self.labels.items()}
        padding_mask, actions = (
            None if tensor is None else tensor.to(device, non_blocking=True)
            for tensor in (self.padding_mask, self.actions)
        )
        sample = self.sample.to(device, non_blocking=True)
        return replace(self, sample=sample, labels=labels, padding_mask=padding_mask, actions=actions)

    def conditioning(self, latent_mask: Callable[[Tensor], Tensor] | None = None) -> Conditioning:
        """What a backbone is told of the batch: its labels, and what is padding where ``latent_mask`` is given.

        latent_mask: the autoencoder's, which brings masks to latents. What is sampled without it is whole.
        """
        padding_mask = None
        if self.padding_mask is not None and latent_mask is not None:
            padding_mask = self.padding_mask if self.encoded else latent_mask(self.padding_mask)
        return Conditioning(labels=dict(self.labels), padding_mask=padding_mask)


class Dataset(Protocol):
    """Examples by number.

    A dataset may also offer ``__getitems__(indices) -> list[Example]``, or ``batch(indices, generators) -> Batch``,
    the only one of the three that is given randomness: one generator an example, None for no augmentation.
    ``fingerprint() -> str``, a digest of what its examples are, is what a cache of its latents is known by, and by what
    a run that goes on notices other data; ``versions() -> Tensor`` ``(N, 2)`` int64, a hash and a time of change of
    each example, tells it how many are others.
    ``label_combinations`` (class numbers of all labels that have classes, in their order, to how often they occur
    together) and ``label_quantiles`` (scalar label to its evenly spaced quantiles) are what clips are drawn for.
    ``buckets`` ``(N,)`` int64, where not None, tells which examples are of one shape: a batch is of one bucket.
    One whose examples are ``actions`` names their k numbers by ``action_names`` and gives ``action_bank(num) ->
    Recorded``, some of their rows, which clips are made by where nothing else is asked for. One that reads other
    examples in place of those that it cannot read tells so by their ``lost``, and offers ``lose(lost)``, which counts
    and names them.
    """

    label_names: Mapping[str, tuple[str, ...]]
    """Label to the names of its classes, in the order of their numbers; ``()`` for a scalar label."""
    label_counts: Mapping[str, tuple[int, ...]]
    """Label to the number of examples of each class; ``()`` for a scalar label."""
    rejects: Mapping[str, int]
    """Reason to the number of sources that were left out for it."""
    rejected: Sequence[tuple[str, str]]
    """Each source that was left out, with the reason."""
    shape: tuple[int, ...]
    """``(C, *S)``."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Example: ...


def collate(examples: Sequence[Example]) -> Batch:
    """The batch of some examples that carry the same labels; captions only where every example has one."""
    labels = {}
    for name, first in examples[0].labels.items():
        dtype = torch.float32 if isinstance(first, float) else torch.int64
        labels[name] = torch.tensor([example.labels[name] for example in examples], dtype=dtype)
    captions = [example.caption for example in examples if example.caption is not None]
    rows = [example.actions for example in examples if example.actions is not None]
    masks = [example.padding_mask for example in examples if example.padding_mask is not None]
    assert len(rows) in (0, len(examples)), "every example has rows, or none"
    assert len(masks) in (0, len(examples)), "a modality tells the padding of every example, or of none"
    if len(shapes := {tuple(example.sample.shape) for example in examples}) > 1:
        raise ValueError(
            f"samples of the shapes {', '.join(map(str, sorted(shapes)))} cannot be one batch; what "
            "takes examples in turn (figures, latents) does not work with modality.buckets"
        )
    return Batch(
        sample=torch.stack([example.sample for example in examples]),
        labels=labels,
        captions=captions if len(captions) == len(examples) else None,
        padding_mask=torch.stack(masks) if masks else None,
        actions=torch.stack(rows) if rows else None,
        lost=tuple(each for example in examples for each in example.lost),
    )


def transform_batch(modality: Modality, samples: Tensor, generators: Sequence[torch.Generator] | None) -> Tensor:
    """Samples ``(B, C, *S)`` of one size, each brought to the modality's shape.

    At once where the modality offers ``transform_batch``, one by one where it does not.
    """
    at_once = getattr(modality, "transform_batch", None)
    if at_once is not None:
        return at_once(samples, generators)
    each = generators or repeat(None, len(samples))
    return torch.stack([modality.transform(sample, generator) for sample, generator in zip(samples, each, strict=True)])


def check_split(split: str) -> None:
    """Refuses (ValueError) what is neither "train" nor "held_out"."""
    if split not in ("train", "held_out"):
        raise ValueError(f'split must be "train" or "held_out", got {split!r}')


def count_classes(classes: Tensor, num_classes: int) -> tuple[int, ...]:
    """How often each class number occurs in ``(N,)`` int64."""
    return tuple(torch.bincount(classes, minlength=num_classes).tolist())

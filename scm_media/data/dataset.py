"""The base class of datasets: examples by number, and what training asks of them beside their samples."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from scm_media.data.actions import MAX_ACTION_SEQUENCES, ActionBank
from scm_media.data.examples import Batch, Example, collate

if TYPE_CHECKING:
    from scm_media.data.captions import CaptionTable
    from scm_media.prompts import PromptBank


class Dataset(ABC):
    """Examples by number.

    A subclass sets ``label_names``, ``label_counts`` and ``shape``, and implements ``__len__`` and ``__getitem__``.
    Every other attribute and method is optional; the defaults here serve a dataset that knows no more than that.
    """

    label_names: Mapping[str, tuple[str, ...]] = {}
    """Label to the names of its classes, in the order of their numbers; ``()`` for a scalar label."""
    label_counts: Mapping[str, tuple[int, ...]] = {}
    """Label to the number of examples of each class; ``()`` for a scalar label."""
    shape: tuple[int, ...]
    """``(C, *S)``."""
    rejects: Mapping[str, int] = {}
    """Reason to the number of sources that were left out for it."""
    rejected: Sequence[tuple[str, str]] = ()
    """Each source that was left out, with the reason."""
    buckets: Tensor | None = None
    """``(N,)`` int64, the examples that have one shape, so that a batch is of one bucket; None for one shape."""
    has_samples: bool = True
    """False for labels alone, whose samples are zeros that nothing may be learned from."""
    prompt_bank: PromptBank | None = None
    """The embeddings of the classes of the label ``prompt``, for networks that take text; None without."""
    caption_table: CaptionTable | None = None
    """The texts of each example, of which batches draw one as its label ``prompt``; None without text."""
    action_names: Sequence[str] = ()
    """The names of the numbers of ``Example.actions``; empty where examples have none."""

    @property
    def label_combinations(self) -> Mapping[tuple[int, ...], int]:
        """Class numbers of all labels that have classes, in order, to how often they occur together."""
        return {}

    @property
    def label_quantiles(self) -> Mapping[str, Sequence[float]]:
        """Scalar label to its evenly spaced quantiles, for which samples are drawn."""
        return {}

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: int) -> Example: ...

    def __getitems__(self, indices: Sequence[int]) -> list[Example]:
        """Returns several examples, by default one after the other."""
        return [self[index] for index in indices]

    def batch(self, indices: Sequence[int], generators: Sequence[torch.Generator] | None = None) -> Batch:
        """Returns the batch of these examples; ``generators``, one an example, make their augmentation.

        Override it in a dataset that augments, or that reads many examples faster than one by one.
        """
        return collate(self.__getitems__(indices))

    def captions(self) -> Sequence[tuple[str, ...]]:
        """Returns the texts that describe each example; empty for an example without."""
        return [()] * len(self)

    def fields(self, index: int) -> Mapping[str, str]:
        """Returns values of an example by name, its labels among them, which templates of texts may name."""
        return {}

    def fingerprint(self) -> str | None:
        """Returns a digest of the examples, by which a run that goes on, and a cache of latents, notice other data.

        None where the dataset has none: its latents cannot be cached.
        """
        return None

    def versions(self) -> Tensor:
        """Returns ``(N, 2)`` int64, a hash and a time of change of each example; ``(0, 2)`` where they have none."""
        return torch.zeros(0, 2, dtype=torch.int64)

    def action_bank(self, num: int = MAX_ACTION_SEQUENCES) -> ActionBank:
        """Returns the actions of ``num`` examples, for which samples are drawn where a user asks for none."""
        raise ValueError(
            f"{type(self).__name__} has actions ({', '.join(self.action_names)}) but no method action_bank(num) -> "
            "ActionBank, so that no sample could be drawn for them: add it"
        )

    def count_skipped(self, skipped: Sequence[tuple[str, str]]) -> None:
        """Counts files in whose place others were read (``Example.skipped``), each given with what is wrong."""
        return


def check_split(split: str) -> None:
    """Raises ValueError for a split that is neither "train" nor "held_out"."""
    if split not in ("train", "held_out"):
        raise ValueError(f'split must be "train" or "held_out", got {split!r}')


def count_classes(classes: Tensor, num_classes: int) -> tuple[int, ...]:
    """Returns how often each class number occurs in ``(N,)`` int64."""
    return tuple(torch.bincount(classes, minlength=num_classes).tolist())

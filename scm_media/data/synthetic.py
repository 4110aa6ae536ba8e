"""The base class of datasets that are made on the fly: no download, for tests and first runs."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from scm_media.data.dataset import Dataset, check_split, count_classes
from scm_media.data.examples import Batch, Example
from scm_media.modality import Modality
from scm_media.seeds import mix


class SyntheticDataset(Dataset):
    """``num`` examples, each a function of (seed, split, index) alone.

    A subclass sets ``label_names``, ``noun``, ``axes`` and ``kind``, and implements ``draw``. Classes take turns: each
    class of a label meets every class of the labels before it. A modality of another class than
    ``modality_class`` or another rank than ``axes`` is refused (ValueError), and so is a root, since no file is read.
    """

    noun: str
    """The name of an example in sources and fingerprints."""
    axes: str
    """Axes of a sample in words, such as "C, H, W"."""
    kind: str
    """The kind of samples: pictures, sounds, videos."""
    modality_class: type = Modality
    """The modality that ``draw`` needs; any, unless a subclass asks for more than its shape."""

    def __init__(
        self,
        modality: Modality,
        num: int = 4096,
        seed: int = 0,
        split: str = "train",
        held_out: float = 0.02,
        root: str | None = None,
    ) -> None:
        check_split(split)
        self.modality, self.shape = modality, modality.shape()
        if len(self.shape) != len(self.axes.split(", ")) or not isinstance(modality, self.modality_class):
            raise ValueError(
                f"{self.noun}s are {self.kind} ({self.axes}), the modality {modality.name} asks for {self.shape}"
            )
        if root is not None:
            raise ValueError(
                f"data.root={root} is read by no one: {self.noun}s are made on the fly; choose data=folder"
            )
        if num < 1:
            raise ValueError(f"data.num must be at least 1, got {num}")
        self._num = num if split == "train" else max(1, round(num * held_out))
        self._seed = mix(seed, 0 if split == "train" else 1)
        labels = self._labels(range(self._num))
        self.label_counts = {name: count_classes(labels[name], len(names)) for name, names in self.label_names.items()}

    def fields(self, index: int) -> dict[str, str]:
        labels = self._labels([index])
        return {name: names[int(labels[name])] for name, names in self.label_names.items()}

    @abstractmethod
    def draw(self, generators: Sequence[torch.Generator], labels: Mapping[str, Tensor]) -> Tensor:
        """Returns samples ``(B, C, *S)`` for labels ``(B,)``, each drawn by its own generator."""

    def __len__(self) -> int:
        return self._num

    def __getitem__(self, index: int) -> Example:
        batch = self.batch([index])
        labels = {name: int(label[0]) for name, label in batch.labels.items()}
        return Example(batch.sample[0], labels, source=f"{self.noun} {index}")

    def batch(self, indices: Sequence[int], generators: Sequence[torch.Generator] | None = None) -> Batch:
        for index in indices:
            if not 0 <= index < self._num:
                raise IndexError(f"example {index} of {self._num}")
        labels = self._labels(indices)
        samples = self.draw([torch.Generator().manual_seed(mix(self._seed, index)) for index in indices], labels)
        return Batch(self.modality.transform_batch(samples, generators), labels)

    def _labels(self, indices: Sequence[int]) -> dict[str, Tensor]:
        turns = torch.as_tensor(indices, dtype=torch.int64)
        labels = {}
        for name, classes in self.label_names.items():
            labels[name] = turns % len(classes)
            turns = turns // len(classes)
        return labels

    def fingerprint(self) -> str:
        """Returns what the examples follow from: number, seed of the split, shape."""
        return f"{self.noun.replace(' ', '-')}s-{self._num}-{self._seed}-{'x'.join(map(str, self.shape))}"

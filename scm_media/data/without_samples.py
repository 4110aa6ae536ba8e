"""Labels and prompts without samples, for students that are distilled from a teacher alone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from scm_media.data.synthetic import SyntheticDataset
from scm_media.modality import Modality
from scm_media.parts import part
from scm_media.prompts import LABEL, PromptBank, text_names

AXES = ("C", "S", "T", "U", "V")


@part("data")
class WithoutSamples(SyntheticDataset):
    """``num`` examples of labels alone, whose samples are zeros; combinations of classes take turns.

    classes: label to its number of classes, or to their names. prompts: a file that ``PromptBank.save`` wrote, whose
    texts are the classes of the label ``prompt``. Raises ValueError for labels without classes.
    """

    noun, kind = "label", "samples"
    has_samples = False

    def __init__(
        self,
        modality: Modality,
        num: int = 16384,
        seed: int = 0,
        split: str = "train",
        held_out: float = 0.02,
        root: str | None = None,
        classes: Mapping[str, int | Sequence[str]] | None = None,
        prompts: str | None = None,
    ) -> None:
        names = {
            label: tuple(map(str, range(found))) if isinstance(found, int) else tuple(found)
            for label, found in (classes or {}).items()
        }
        if prompts is not None:
            self.prompt_bank = PromptBank.load(prompts)
            names[LABEL] = text_names(self.prompt_bank.prompts)
        if split == "train" and LABEL in names and num < len(names[LABEL]):
            raise ValueError(
                f"data.num={num} examples do not take {len(names[LABEL])} prompts in turn: give at least so many"
            )
        if empty := [label for label, found in names.items() if not found]:
            raise ValueError(f"data.classes.{empty[0]} must have at least one class, got none")
        self.label_names = names
        self.axes = ", ".join(AXES[: len(modality.shape())])
        super().__init__(modality, num, seed, split, held_out, root)

    def fingerprint(self) -> str:
        """Returns what the examples follow from: number, seed, shape, classes and the embeddings of prompts."""
        found = hashlib.sha256(json.dumps([list(self.label_names), *map(list, self.label_names.values())]).encode())
        found.update(b"" if self.prompt_bank is None else self.prompt_bank.fingerprint().encode())
        return f"{super().fingerprint()}-{found.hexdigest()[:16]}"

    def draw(self, generators: Sequence[torch.Generator], labels: Mapping[str, Tensor]) -> Tensor:
        """Returns zeros ``(B, C, *S)``."""
        return torch.zeros(len(generators), *self.shape)

"""Actions: numbers for each frame of a sample, as users write them or as the training data has them."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from scm_media.build import nearest
from scm_media.pipeline.labels import SampleLabels
from scm_media.pipeline.model_folder import ModelFolder
from scm_media.pipeline.randomness import FIRST_DRAW, sample_uniform

if TYPE_CHECKING:
    from scm_media.data.actions import ActionBank

Actions = str | Path | Tensor | Sequence[Any] | None
"""A .jsonl or .csv file, ``"ahead*8,ahead+left*8"``, or numbers ``(n, k)`` or ``(B, n, k)``, a row for each frame."""

SUFFIXES = (".jsonl", ".csv")
NONE = "none"
"""Stands in text for a frame without an action."""


@dataclass(frozen=True)
class ActionSet:
    """The actions of a model: names of the k numbers, the bank to draw from, and classes by label."""

    names: Sequence[str]
    bank: ActionBank | None
    classes: Mapping[str, Sequence[str]]

    @classmethod
    def from_folder(cls, folder: ModelFolder) -> ActionSet:
        """Returns the actions of a model, without names for a model without; raises ValueError for a damaged file."""
        names, file = folder.description.actions or [], folder.file("action_bank")
        bank = None
        if names and folder.has("action_bank"):
            from scm_media.data.actions import ActionBank  # a model without actions starts without the data sets

            bank = ActionBank.from_component(folder.read("action_bank"), file)
        if bank is not None and bank.actions.shape[1] != len(names):
            raise ValueError(
                f"{file} has {bank.actions.shape[1]} numbers a frame, but the model has {len(names)} actions; export "
                "the model again"
            )
        return cls(names, bank, folder.description.labels)

    def parse(self, actions: str | Path | Tensor | Sequence[Any]) -> Tensor:
        """Returns numbers ``(n, k)`` or ``(B, n, k)``, float32; raises ValueError for what the model does not know."""
        if isinstance(actions, Path) or (isinstance(actions, str) and actions.lower().endswith(SUFFIXES)):
            return self._as_tensor(self._read(Path(actions)), str(actions))
        if isinstance(actions, str):
            return torch.tensor([row for item in actions.split(",") for row in self._parse_item(item)])
        return self._as_tensor(actions, "the given actions")

    def draw(self, labels: Mapping[str, Any], num_frames: int, seed: int, index: int) -> Tensor:
        """Returns actions ``(k, n)`` of training samples with these classes, drawn from (seed, index).

        A sample that is longer than those of the bank gets the actions of several in turn.
        """
        if self.bank is None:
            raise ValueError(
                "the model has no action bank to draw from: give actions (--actions), or export the model again"
            )
        rows, same = self.bank.actions, torch.ones(len(self.bank.actions), dtype=torch.bool)
        for name, numbers in self.bank.labels.items():
            if name in labels:
                same &= numbers == list(self.classes[name]).index(str(labels[name]))
        among = same.nonzero().flatten() if bool(same.any()) else torch.arange(len(rows))
        num = -(-num_frames // rows.shape[-1])
        fractions = [sample_uniform(seed, index, FIRST_DRAW + part) for part in range(num)]
        return torch.cat([rows[among[int(fraction * len(among))]] for fraction in fractions], -1)[:, :num_frames]

    def _parse_item(self, item: str) -> list[list[float]]:
        """Returns the numbers of ``name+name*count``, a list for each frame."""
        found = re.fullmatch(r"\s*([^*]+?)\s*(?:\*\s*(\d+)\s*)?", item)
        if found is None:
            raise ValueError(
                f"actions are written NAME*COUNT,NAME+NAME*COUNT,… or stand in a .jsonl or .csv; got {item.strip()!r}"
            )
        numbers = [self._find(name.strip()) for name in found[1].split("+")]
        return [[float(number in numbers) for number in range(len(self.names))]] * int(found[2] or 1)

    def _find(self, name: str) -> int | None:
        names = [each.casefold() for each in (*self.names, NONE)]
        if name.casefold() not in names:
            listed = ", ".join((*self.names, NONE))
            raise ValueError(f"the model knows no action {name!r}{nearest(name, names)}; it knows {listed}")
        number = names.index(name.casefold())
        return number if number < len(self.names) else None

    def _read(self, file: Path) -> list[Any]:
        """Returns the rows of a file: a list of numbers on each line, or a .csv whose first line may be the names."""
        try:
            text = file.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"the actions in {file} cannot be read: {error}") from error
        lines = [line for line in text.splitlines() if line.strip()]
        try:
            if file.suffix.lower() == ".jsonl":
                return [json.loads(line) for line in lines]
            rows = [[cell.strip() for cell in row] for row in csv.reader(lines)]
            if rows and rows[0] == list(self.names):
                rows = rows[1:]
            return [[float(cell) for cell in row] for row in rows]
        except ValueError as error:
            raise ValueError(f"{file} holds no actions: {error}; {self._expectation()}") from error

    def _as_tensor(self, actions: Any, source: str) -> Tensor:
        try:
            tensor = torch.as_tensor(actions, dtype=torch.float32)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ValueError(f"{source}: no rows of numbers ({error}); {self._expectation()}") from error
        finite = bool(torch.isfinite(tensor).all())
        if tensor.ndim not in (2, 3) or tensor.shape[-1] != len(self.names) or not finite:
            size = "×".join(map(str, tensor.shape)) or "one number"
            raise ValueError(
                f"{source}: got {size} numbers{'' if finite else ', not all of them finite'}; {self._expectation()}"
            )
        return tensor.detach().cpu()

    def _expectation(self) -> str:
        return f"expected {len(self.names)} numbers for each frame: {', '.join(self.names)}"


class SampleActions:
    """The actions of samples with these labels; a slice of them is ``(B, k, n)``, for n frames of each sample.

    actions: as users write them; None draws them, each slice when it is asked for. Raises ValueError for actions that
    the model does not know, and for another number of frames or samples.
    """

    def __init__(self, action_set: ActionSet, actions: Actions, labels: SampleLabels, num_frames: int) -> None:
        self.action_set, self.labels, self.num_frames = action_set, labels, num_frames
        self._given = None if actions is None else action_set.parse(actions)
        if self._given is None:
            self[:1]  # a model without a bank is refused before anything is sampled
            return
        if self._given.ndim == 3 and len(self._given) != len(labels):
            raise ValueError(
                f"got actions of {len(self._given)} samples for {len(labels)}; give one sequence, or one a sample"
            )
        if self._given.shape[-2] != num_frames:
            raise ValueError(
                f"actions have one row for each frame of the sample, {num_frames} in all; got {self._given.shape[-2]}"
            )

    @classmethod
    def resolve(
        cls, action_set: ActionSet, actions: Actions, labels: SampleLabels, num_frames: int
    ) -> SampleActions | None:
        """Returns the actions of samples, None for a model without; raises ValueError for actions that it is given."""
        if action_set.names:
            return cls(action_set, actions, labels, num_frames)
        if actions is not None:
            raise ValueError("the model was trained without actions, so it takes none; leave --actions out")
        return None

    def __getitem__(self, part: slice) -> Tensor:
        if self._given is None:
            each = zip(self.labels[part], self.labels.indices[part], strict=True)
            seed = self.labels.seed
            return torch.stack([self.action_set.draw(label, self.num_frames, seed, index) for label, index in each])
        rows = self._given if self._given.ndim == 2 else self._given[part]
        num = len(self.labels.indices[part])
        return rows.expand(num, *rows.shape[-2:]).transpose(1, 2).contiguous()


def format_actions(rows: Tensor, names: Sequence[str]) -> str | None:
    """Returns actions ``(n, k)`` of zeros and ones as ``ActionSet.parse`` takes them; None for other numbers."""
    if not bool(((rows == 0) | (rows == 1)).all()):
        return None
    words = ["+".join(name for name, on in zip(names, row, strict=True) if on) or NONE for row in rows.tolist()]
    counted = [(word, len(list(same))) for word, same in groupby(words)]
    return ",".join(word if num == 1 else f"{word}*{num}" for word, num in counted)

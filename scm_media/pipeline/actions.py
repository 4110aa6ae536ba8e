"""What happens at each place of a clip: rows of numbers as users write them, or as the training data had them."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scm_media.build import nearest
from scm_media.data.actions import ActionBank
from scm_media.pipeline.folder import ModelFolder
from scm_media.pipeline.randomness import FIRST_DRAW, sample_uniform

Actions = str | Path | Tensor | Sequence[Any] | None
"""A .jsonl or .csv file, ``"ahead*8,ahead+left*8"``, or rows ``(n, k)`` or ``(B, n, k)`` of numbers."""

SUFFIXES = (".jsonl", ".csv")
NONE = "none"
"""What is written where nothing is done."""


@dataclass(frozen=True)
class ActionSet:
    """The actions that a model knows: names of the k numbers, what its training data had, classes by label."""

    names: Sequence[str]
    recorded: ActionBank | None
    classes: Mapping[str, Sequence[str]]

    @classmethod
    def of(cls, folder: ModelFolder) -> ActionSet:
        """Those of a model's folder, without names for a model without; ValueError for a damaged file."""
        names, file = folder.description.get("actions") or [], folder.action_bank_file
        recorded = ActionBank.load(file) if names and file.is_file() else None
        if recorded is not None and recorded.actions.shape[1] != len(names):
            raise ValueError(
                f"{file} has {recorded.actions.shape[1]} numbers a row, but the model has {len(names)} actions; export "
                "the model again"
            )
        return cls(names, recorded, folder.description["labels"])

    def resolve(
        self, actions: Actions, labels: Sequence[Mapping[str, Any]], num_places: int, seed: int, first: int
    ) -> Tensor | None:
        """Rows ``(B, k, n)`` of clips ``first``, ``first`` + 1 … with these labels; None of a model without actions.

        num_places: n, along the first axis of the clips. None: each clip has those of a training example of its
        classes, drawn by (seed, its number), and of a second after it where the clip is longer.
        Raises ValueError for actions that the model does not know, or that are not one row for each place.
        """
        if not self.names:
            if actions is not None:
                raise ValueError("the model was trained without actions, so it takes none; leave them out")
            return None
        if actions is None:
            drawn = [self._draw(label, num_places, seed, first + place) for place, label in enumerate(labels)]
            return torch.stack(drawn)
        rows = self.parse(actions)
        if rows.ndim == 3 and len(rows) != len(labels):
            raise ValueError(f"got actions of {len(rows)} clips for {len(labels)}; give one sequence, or one a clip")
        if rows.shape[-2] != num_places:
            raise ValueError(
                f"actions are one row for each place (frame) of the clip, of which it has {num_places}; "
                f"got {rows.shape[-2]}"
            )
        return rows.expand(len(labels), *rows.shape[-2:]).transpose(1, 2).contiguous()

    def parse(self, actions: str | Path | Tensor | Sequence[Any]) -> Tensor:
        """Rows ``(n, k)``, or ``(B, n, k)``, float32; ValueError as ``resolve``."""
        if isinstance(actions, Path) or (isinstance(actions, str) and actions.lower().endswith(SUFFIXES)):
            return self._checked(self._read(Path(actions)), str(actions))
        if isinstance(actions, str):
            return torch.tensor([row for item in actions.split(",") for row in self._rows(item)])
        return self._checked(actions, "the given rows")

    def _rows(self, item: str) -> list[list[float]]:
        """The rows of ``name+name*count``."""
        found = re.fullmatch(r"\s*([^*]+?)\s*(?:\*\s*(\d+)\s*)?", item)
        if found is None:
            raise ValueError(
                f"actions are written NAME*COUNT,NAME+NAME*COUNT,… or stand in a .jsonl or .csv; got {item.strip()!r}"
            )
        held = [self._find(name.strip()) for name in found[1].split("+")]
        return [[float(place in held) for place in range(len(self.names))]] * int(found[2] or 1)

    def _find(self, name: str) -> int | None:
        known = [each.casefold() for each in (*self.names, NONE)]
        if name.casefold() not in known:
            listed = ", ".join((*self.names, NONE))
            raise ValueError(f"the model knows no action {name!r}{nearest(name, known)}; it knows {listed}")
        place = known.index(name.casefold())
        return place if place < len(self.names) else None

    def _read(self, file: Path) -> list[Any]:
        """The rows of a file: a list of numbers a line, or a .csv whose first line may be the names."""
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
            raise ValueError(f"{file} holds no rows of actions: {error}; {self._expected()}") from error

    def _checked(self, rows: Any, source: str) -> Tensor:
        try:
            tensor = torch.as_tensor(rows, dtype=torch.float32)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ValueError(f"{source}: no rows of numbers ({error}); {self._expected()}") from error
        if tensor.ndim not in (2, 3) or tensor.shape[-1] != len(self.names) or not bool(torch.isfinite(tensor).all()):
            told = "×".join(map(str, tensor.shape)) or "one number"
            finite = "" if bool(torch.isfinite(tensor).all()) else ", not all of them finite"
            raise ValueError(f"{source}: got {told} numbers{finite}; {self._expected()}")
        return tensor.detach().cpu()

    def _expected(self) -> str:
        return f"expected {len(self.names)} numbers for each place of the clip: {', '.join(self.names)}"

    def _draw(self, label: Mapping[str, Any], num_places: int, seed: int, index: int) -> Tensor:
        if self.recorded is None:
            raise ValueError("the model carries no recorded actions to draw from: give some, or export it again")
        rows, alike = self.recorded.actions, torch.ones(len(self.recorded.actions), dtype=torch.bool)
        for name, numbers in self.recorded.labels.items():
            if name in label:
                alike &= numbers == list(self.classes[name]).index(str(label[name]))
        among = alike.nonzero().flatten() if bool(alike.any()) else torch.arange(len(rows))
        num = -(-num_places // rows.shape[-1])
        fractions = [sample_uniform(seed, index, FIRST_DRAW + part) for part in range(num)]
        return torch.cat([rows[among[int(fraction * len(among))]] for fraction in fractions], -1)[:, :num_places]


def to_text(rows: Tensor, names: Sequence[str]) -> str | None:
    """Rows ``(n, k)`` of zeros and ones as ``ActionSet.parse`` takes them; None of other numbers."""
    if not bool(((rows == 0) | (rows == 1)).all()):
        return None
    words = ["+".join(name for name, held in zip(names, row, strict=True) if held) or NONE for row in rows.tolist()]
    return ",".join(word if num == 1 else f"{word}*{num}" for word, num in _runs(words))


def _runs(words: Iterable[str]) -> list[tuple[str, int]]:
    """Each word with how often it follows itself."""
    runs: list[tuple[str, int]] = []
    for word in words:
        if runs and runs[-1][0] == word:
            runs[-1] = word, runs[-1][1] + 1
        else:
            runs.append((word, 1))
    return runs

"""Rows of numbers that a dataset has for the places of its samples: checked, read, and which of them are kept."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scm_media import weights
from scm_media.class_names import names_of
from scm_media.data.entries import Unusable
from scm_media.modality import Modality

MOST_ACTION_SEQUENCES, MOST_BYTES = 512, 1 << 20
"""Sequences of rows that a model carries, and bytes of them."""
ACTIONS, LABEL = "actions", "label."
"""Names of the tensors in the file of an action bank: the actions, and a prefix for the label's name."""


@dataclass(frozen=True)
class ActionBank:
    """Actions ``(N, k, n)`` of some training examples, and the class numbers ``(N,)`` of each label with classes."""

    actions: Tensor
    labels: Mapping[str, Tensor]

    def save(self, path: Path) -> None:
        """Writes one safetensors file."""
        state = {ACTIONS: self.actions, **{LABEL + name: numbers for name, numbers in self.labels.items()}}
        weights.save(path, state, {"_target_": f"{__name__}.ActionBank"})

    @classmethod
    def load(cls, path: Path) -> ActionBank:
        """Reads the file of an action bank; raises ValueError for one that is missing, cut short or something else."""
        state = weights.read(path).state
        if ACTIONS not in state:
            raise ValueError(f"{path} holds no {ACTIONS}, so it is no action bank; export the model again")
        labels = {name.removeprefix(LABEL): state[name] for name in state if name.startswith(LABEL)}
        actions = state[ACTIONS]
        finite = actions.is_floating_point() and bool(torch.isfinite(actions).all())
        if actions.ndim != 3 or actions.numel() == 0 or not finite:
            raise ValueError(f"{path} holds no actions (N, k, n) of finite numbers; export the model again")
        if wrong := [name for name, numbers in labels.items() if numbers.shape != actions.shape[:1]]:
            raise ValueError(f"{path} has not {len(actions)} labels {wrong[0]}, one a sequence; export the model again")
        return cls(actions, labels)


def chosen(num: int, rows_shape: Sequence[int], wanted: int = MOST_ACTION_SEQUENCES) -> list[int]:
    """Which of ``num`` examples, in order, are kept where each has rows ``(k, n)``: always the same, drawn evenly."""
    room = max(1, MOST_BYTES // (4 * math.prod(rows_shape)))
    order = torch.randperm(num, generator=torch.Generator().manual_seed(0))
    return sorted(order[: min(wanted, room)].tolist())


def check_actions(column: str | None, names: Sequence[str] | None, path: Path, modality: Modality) -> None:
    """ValueError where rows cannot be read of a column, cannot be told apart by these names, or would lie elsewhere."""
    if column is None:
        if names is not None:
            raise ValueError(f"data.action_names={list(names)} names the numbers of no column: set data.actions")
        return
    if path.suffix.lower() != ".jsonl":
        raise ValueError(f"data.actions={column}: rows of numbers stand in a .jsonl, got {path}")
    modality.check_actions()
    if names is not None:
        names = names_of(names, "data.action_names")
        if not names:
            raise ValueError("data.action_names must be a list of names, or null, got an empty one")
    for name in names or ():
        # What stands between names where a user asks for them: see pipeline/actions.py.
        if not re.fullmatch(r"(?i)(?!none$)[^\s,+*]+", str(name)) or list(names or ()).count(name) > 1:
            raise ValueError(
                "data.action_names must differ, have no spaces, commas, plus signs or stars, and not be 'none'; "
                f"got {name!r}"
            )


def usual_width(values: Iterable[Any]) -> int:
    """How many numbers a row has, as most of these do (each a list of rows); 1 where none is a list of rows."""
    widths = Counter(
        len(value[0]) for value in values if isinstance(value, list) and value and isinstance(value[0], list)
    )
    return max(1, widths.most_common(1)[0][0]) if widths else 1


def read_rows(value: Any, column: str, num_places: int, width: int) -> Tensor:
    """Rows ``(k, n)`` float32 of a list of n lists of k numbers; Unusable where it is none, or of another size."""
    if value is None or value == "":
        raise Unusable("missing rows", column)
    if not isinstance(value, list) or not all(isinstance(row, list) for row in value):
        raise Unusable("rows that are no lists of numbers", column)
    if len(value) != num_places:
        raise Unusable("too few or too many rows", f"{column}: {len(value)}, expected {num_places}")
    if wrong := [len(row) for row in value if len(row) != width]:
        raise Unusable("rows of another length", f"{column}: {wrong[0]} numbers, expected {width}")
    for number in (number for row in value for number in row):
        # Beyond what float32 holds a number would become infinite.
        if not isinstance(number, int | float) or not abs(number) <= torch.finfo(torch.float32).max:
            raise Unusable("rows that are no lists of numbers", f"{column}: {number!r}")
    return torch.tensor(value, dtype=torch.float32).T.contiguous()

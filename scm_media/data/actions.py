"""The actions of a dataset, numbers for each frame of its samples: reading them, and the bank that a model carries."""

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

MAX_ACTION_SEQUENCES, MAX_BYTES = 512, 1 << 20
"""The largest number of sequences, and of bytes, that a model carries."""
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
        return cls.from_component(weights.read(path), path)

    @classmethod
    def from_component(cls, component: weights.Component, path: Path) -> ActionBank:
        """Returns the bank that a weight file holds; raises ValueError, naming the file, where it is something else."""
        state = component.state
        if ACTIONS not in state:
            raise ValueError(f"{path} holds no {ACTIONS}, so it is no action bank; export the model again")
        labels = {name.removeprefix(LABEL): state[name] for name in state if name.startswith(LABEL)}
        actions = state[ACTIONS]
        finite = actions.is_floating_point() and bool(torch.isfinite(actions).all())
        if actions.ndim != 3 or actions.numel() == 0 or not finite:
            raise ValueError(f"{path} holds no actions (N, k, n) of finite numbers; export the model again")
        if wrong := [name for name, numbers in labels.items() if numbers.shape != actions.shape[:1]]:
            raise ValueError(
                f"{path} has {len(actions)} sequences of actions and another number of labels {wrong[0]}; export the "
                "model again"
            )
        return cls(actions, labels)


def select_for_bank(num: int, shape: Sequence[int], wanted: int = MAX_ACTION_SEQUENCES) -> list[int]:
    """Returns the examples out of ``num`` whose actions ``(k, n)`` a model carries: always the same, spread evenly."""
    room = max(1, MAX_BYTES // (4 * math.prod(shape)))
    order = torch.randperm(num, generator=torch.Generator().manual_seed(0))
    return sorted(order[: min(wanted, room)].tolist())


def check_actions(column: str | None, names: Sequence[str] | None, path: Path, modality: Modality) -> None:
    """Raises ValueError for a manifest that has no actions, unusable names, or a modality that would misplace them."""
    if column is None:
        if names is not None:
            raise ValueError(f"data.action_names={list(names)} names the numbers of no column: set data.actions")
        return
    if path.suffix.lower() != ".jsonl":
        raise ValueError(f"data.actions={column}: actions are lists of numbers in a .jsonl, got {path}")
    modality.check_actions()
    if names is not None:
        names = names_of(names, "data.action_names")
        if not names:
            raise ValueError("data.action_names must be a list of names, or null, got an empty one")
    for name in names or ():
        # These characters separate names where a user asks for actions: see pipeline/actions.py.
        if not re.fullmatch(r"(?i)(?!none$)[^\s,+*]+", str(name)) or list(names or ()).count(name) > 1:
            raise ValueError(
                "data.action_names must differ, have no spaces, commas, plus signs or stars, and not be 'none'; "
                f"got {name!r}"
            )


def usual_width(values: Iterable[Any]) -> int:
    """Returns the most frequent number of actions of a frame among lists of frames; 1 where there is no such list."""
    widths = Counter(
        len(value[0]) for value in values if isinstance(value, list) and value and isinstance(value[0], list)
    )
    return max(1, widths.most_common(1)[0][0]) if widths else 1


def read_actions(value: Any, column: str, num_frames: int, width: int) -> Tensor:
    """Returns actions ``(k, n)`` float32 from a list of n lists of k numbers; raises Unusable for any other value."""
    if value is None or value == "":
        raise Unusable("missing actions", column)
    if not isinstance(value, list) or not all(isinstance(frame, list) for frame in value):
        raise Unusable("actions that are no lists of numbers", column)
    if len(value) != num_frames:
        raise Unusable("actions for too few or too many frames", f"{column}: {len(value)}, expected {num_frames}")
    if wrong := [len(frame) for frame in value if len(frame) != width]:
        raise Unusable("too few or too many actions for a frame", f"{column}: {wrong[0]} numbers, expected {width}")
    for number in (number for frame in value for number in frame):
        # Beyond what float32 holds a number would become infinite.
        if not isinstance(number, int | float) or not abs(number) <= torch.finfo(torch.float32).max:
            raise Unusable("actions that are no lists of numbers", f"{column}: {number!r}")
    return torch.tensor(value, dtype=torch.float32).T.contiguous()

"""The collection of real features, from which reference statistics follow, batch by batch; it may stop and go on."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scm_media import weights
from scm_media.evaluation.frechet import Moments

SAVE_SECONDS = 30.0
"""An unfinished collection is written at most this often."""
GENERATOR = "generator"


class Collection:
    """Real features so far: moments of the training data's, some of them as neighbours, and all held-out ones.

    num_neighbours: how many training features are kept, a uniform choice by the seed from a stream of any length.
    num_batches: the number of batches that were added, of each split.
    """

    def __init__(self, num_neighbours: int = 3_000, seed: int = 0) -> None:
        self.num_neighbours = num_neighbours
        self.generator = torch.Generator().manual_seed(seed)
        self.moments: Moments | None = None
        self.neighbours, self._keys = torch.empty(0), torch.empty(0)
        self._held_out: list[Tensor] = []
        self._correct: list[Tensor] = []
        self.num_batches = {"train": 0, "held_out": 0}

    def add_train(self, features: Tensor) -> None:
        """Adds features ``(B, d)`` of training samples."""
        self.moments = self.moments or Moments(features.shape[1])
        self.moments.update(features)
        self._keys = torch.cat([self._keys, torch.rand(len(features), generator=self.generator)])
        kept = torch.cat([self.neighbours.reshape(-1, features.shape[1]), features])
        self._keys, indices = torch.topk(self._keys, min(self.num_neighbours, len(self._keys)))
        self.neighbours = kept[indices]
        self.num_batches["train"] += 1

    def add_held_out(self, features: Tensor, correct: Tensor | None) -> None:
        """Adds features ``(B, d)`` of held-out samples, and which labels were recognised, None for no classifier."""
        self._held_out.append(features)
        self._correct += [] if correct is None else [correct]
        self.num_batches["held_out"] += 1

    @property
    def held_out(self) -> Tensor:
        """The features ``(N, d)`` of held-out samples, N = 0 where none was added."""
        assert self.moments is not None
        return torch.cat([torch.empty(0, self.moments.mean.numel()), *self._held_out])

    @property
    def accuracy(self) -> float | None:
        """The fraction of held-out labels that were recognised; None without a classifier."""
        return float(torch.cat(self._correct).mean()) if self._correct else None

    def state_dict(self) -> dict[str, Tensor]:
        """Returns everything that the collection needs to go on as if it had not stopped."""
        counts = {name: torch.tensor(num) for name, num in self.num_batches.items()}
        state = {"neighbours": self.neighbours, "keys": self._keys, GENERATOR: self.generator.get_state(), **counts}
        if self.moments is not None:
            state |= {f"moments.{name}": tensor for name, tensor in self.moments.state_dict().items()}
        if self._held_out:
            state["features"] = torch.cat(self._held_out)
        if self._correct:
            state["correct"] = torch.cat(self._correct)
        return state

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Takes over what ``state_dict`` returned; raises KeyError where a part of it is missing."""
        self.neighbours, self._keys = state["neighbours"], state["keys"]
        self.generator.set_state(state[GENERATOR])
        self.num_batches = {name: int(state[name]) for name in self.num_batches}
        prefix = "moments."
        if own := {name.removeprefix(prefix): each for name, each in state.items() if name.startswith(prefix)}:
            self.moments = Moments(len(own["mean"]))
            self.moments.load_state_dict(own)
        self._held_out = [state["features"]] if "features" in state else []
        self._correct = [state["correct"]] if "correct" in state else []


class UnfinishedFile:
    """The file of a collection that is under way; path: None keeps nothing.

    identity: describes the data and their batches. A file with another one, and one that is damaged, counts as none.
    """

    def __init__(self, path: Path | None, identity: Mapping[str, Any]) -> None:
        self.path, self.identity = path, dict(identity)
        self._saved = time.monotonic()

    def resume(self) -> Collection:
        """Returns the collection in the file, an empty one where there is none of these data."""
        collection = Collection()
        if self.path is None or not self.path.is_file():
            return collection
        try:
            found = weights.read(self.path)
            if found.config == self.identity:
                collection.load_state_dict(found.state)
                return collection
        except (ValueError, KeyError):
            pass
        return Collection()

    def save(self, collection: Collection) -> None:
        """Writes the collection, unless it was written less than half a minute ago."""
        if self.path is not None and time.monotonic() - self._saved >= SAVE_SECONDS:
            weights.save(self.path, collection.state_dict(), self.identity)
            self._saved = time.monotonic()

    def remove(self) -> None:
        """Removes the file, once its collection is whole."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)

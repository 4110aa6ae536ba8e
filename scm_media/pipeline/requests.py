"""Labels and actions of many clips, resolved batch by batch: drawing them for all clips at once takes minutes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from scm_media.modality import Modality
from scm_media.pipeline.actions import Actions, ActionSet
from scm_media.pipeline.labels import Label, LabelSet
from scm_media.pipeline.randomness import check_samples

LARGEST = 2**30
"""Numbers in the sample of one clip, which is held in memory as a whole: 4 GiB."""


def check_sizes(modality: Modality, sizes: Mapping[str, float]) -> None:
    """Raises ValueError for an extent that is no finite number, and for extents of a clip that no memory holds."""
    for name, value in sizes.items():
        if not math.isfinite(value):
            raise ValueError(f"{name} must be a finite number, got {value}")
    shape = modality.shape(**sizes)
    if math.prod(shape) > LARGEST:
        told, size = ", ".join(f"{name} {value:g}" for name, value in sizes.items()), "×".join(map(str, shape))
        raise ValueError(f"{told}: a clip of {size} has more than {LARGEST} numbers (4 GiB); ask for less")


class SampleLabels:
    """The labels of clips ``first`` to ``first + num - 1``; a slice of them is a list of label name to value.

    Those that are not given are drawn from (seed, clip) when their slice is asked for. drawn: whether they are at all.
    Raises ValueError for unknown labels, and for more or fewer than one a clip.
    """

    def __init__(
        self, known: LabelSet, num: int, label: Label | Sequence[Label], seed: int, first: int, drawn: bool
    ) -> None:
        if num < 1:
            raise ValueError(f"num must be at least 1, got {num}")
        check_samples(seed, first, num)
        self.known, self.num, self.seed, self.first, self.drawn = known, num, seed, first, drawn
        given = [label] if label is None or isinstance(label, str | Mapping) else list(label)
        self._alike = len(given) == 1 and not isinstance(label, list | tuple)
        if not self._alike and len(given) != num:
            raise ValueError(f"got {len(given)} labels for {num} clips; give one, or one a clip")
        self._given = [known.parse(one) for one in given]

    def add(self, more: Mapping[str, Any]) -> None:
        """Gives all clips these labels, unless their own say otherwise."""
        self._given = [{**more, **one} for one in self._given]

    def __len__(self) -> int:
        return self.num

    def __getitem__(self, places: slice) -> list[dict[str, Any]]:
        given = ((place, self._given[0 if self._alike else place]) for place in range(self.num)[places])
        if not self.drawn:
            return [dict(one) for _, one in given]
        return [self.known.resolve(one, self.seed, self.first + place) for place, one in given]


class SampleActions:
    """The actions of clips with these labels; a slice of them is ``(B, k, n)``, for n places of each clip.

    Raises ValueError for actions that the model does not know, or that are not one row for each place.
    """

    def __init__(self, known: ActionSet, actions: Actions, labels: SampleLabels, num_places: int) -> None:
        self.known, self.labels, self.num_places = known, labels, num_places
        self._rows = None if actions is None else known.parse(actions)
        if self._rows is not None and self._rows.ndim == 3 and len(self._rows) != len(labels):
            raise ValueError(
                f"got actions of {len(self._rows)} clips for {len(labels)}; give one sequence, or one a clip"
            )
        self[:1]  # a wrong number of places is refused before anything is drawn

    def __getitem__(self, places: slice) -> Tensor:
        rows = self._rows
        if rows is not None and rows.ndim == 3:
            rows = rows[places]
        start = range(len(self.labels))[places].start
        found = self.known.resolve(
            rows, self.labels[places], self.num_places, self.labels.seed, self.labels.first + start
        )
        assert found is not None, "a model without actions has none to slice"
        return found


def actions_of(known: ActionSet, actions: Actions, labels: SampleLabels, num_places: int) -> SampleActions | None:
    """Returns the actions of clips, None of a model without. Raises ValueError as ``SampleActions``."""
    if not known.names:
        known.resolve(actions, [], num_places, labels.seed, labels.first)  # which refuses actions
        return None
    return SampleActions(known, actions, labels, num_places)

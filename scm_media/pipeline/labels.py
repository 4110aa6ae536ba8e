"""What clips are of: labels as users write them, labels drawn by (seed, k), and both as conditioning."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch

from scm_media.interfaces import Conditioning
from scm_media.pipeline.randomness import seed_offset

Label = str | Mapping[str, Any] | None
IRRATIONALS = (math.sqrt(5) / 2 - 0.5, math.sqrt(2) - 1, math.sqrt(3) - 1, math.sqrt(7) - 2, math.sqrt(11) - 3)


@dataclass(frozen=True)
class LabelSet:
    """The labels that a model knows: name to classes (none: a number), and how often each class is in its data."""

    names: Mapping[str, Sequence[str]]
    counts: Mapping[str, Sequence[int]]

    def resolve(self, label: Label, seed: int, index: int) -> dict[str, str | float]:
        """Label names and values of clip ``index``: those that are given, the others drawn from (seed, index).

        label: a class, ``"name=value name=value"``, or a mapping. A number that is not given is left out.
        Raises ValueError with the labels or classes there are for one that is unknown.
        """
        drawn = {name: self._draw(name, seed, index) for name, classes in self.names.items() if classes}
        resolved = {**drawn, **self.parse(label)}
        return {name: resolved[name] for name in self.names if name in resolved}

    def parse(self, label: Label) -> dict[str, str | float]:
        """What a user wrote, by label name; empty for None."""
        if label is None:
            return {}
        if isinstance(label, Mapping):
            return {name: self._value(name, value) for name, value in label.items()}
        if owners := [name for name in self.names if self._find(name, label) is not None]:
            return {owners[0]: self._value(owners[0], label)}
        pairs = re.split(r"(?:^|[\s,]+)(\w+)\s*=\s*", label)
        if len(pairs) < 3 or pairs[0].strip():
            raise ValueError(self._unknown(label))
        return {name: self._value(name, value.strip()) for name, value in zip(pairs[1::2], pairs[2::2], strict=True)}

    def conditioning(self, labels: Sequence[Mapping[str, str | float]]) -> Conditioning:
        """The conditioning of clips whose labels are resolved."""
        tensors = {}
        for name, classes in self.names.items():
            if classes:
                tensors[name] = torch.tensor([list(classes).index(str(label[name])) for label in labels])
            else:
                tensors[name] = torch.tensor([float(label.get(name, math.nan)) for label in labels])
        return Conditioning(labels=tensors)

    def _draw(self, name: str, seed: int, index: int) -> str:
        # A rotation by an irrational number spreads any run of clips evenly over the classes.
        place = list(self.names).index(name)
        step = IRRATIONALS[place % len(IRRATIONALS)]
        quantile = (seed_offset(seed, place) + index * step) % 1.0
        classes = self.names[name]
        cumulated = list(accumulate(self.counts.get(name) or [1] * len(classes)))
        return next(label for label, bound in zip(classes, cumulated, strict=True) if quantile * cumulated[-1] < bound)

    def _value(self, name: str, value: Any) -> str | float:
        if name not in self.names:
            raise ValueError(f"the model has no label {name!r}; it knows {', '.join(self.names) or 'none'}")
        if self.names[name]:
            found = self._find(name, str(value))
            if found is None:
                raise ValueError(self._unknown(str(value), (name,)))
            return found
        try:
            return float(value)
        except (TypeError, ValueError) as error:
            raise ValueError(f"label {name} is a number, got {value!r}") from error

    def _find(self, name: str, value: str) -> str | None:
        wanted = value.strip().casefold()
        return next((known for known in self.names[name] if known.casefold() == wanted), None)

    def _unknown(self, value: str, names: Sequence[str] = ()) -> str:
        known = {name: self.names[name] for name in names or self.names}
        if not known:
            return f"the model was trained without labels, got label {value!r}; leave the label out"
        every = [label for classes in known.values() for label in classes]
        near = difflib.get_close_matches(value, every, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        listed = "; ".join(f"{name}: {', '.join(classes) or 'a number'}" for name, classes in known.items())
        return f"the model knows no label {value!r}{hint}; it knows {listed}"

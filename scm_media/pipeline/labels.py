"""What clips are of: labels as users write them, labels drawn by (seed, k), and both as conditioning."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import torch

from scm_media.class_names import class_name
from scm_media.conditioning import NO_LABEL, Conditioning
from scm_media.pipeline.randomness import seed_offset

Label = str | Mapping[str, Any] | None
IRRATIONALS = (math.sqrt(5) / 2 - 0.5, math.sqrt(2) - 1, math.sqrt(3) - 1, math.sqrt(7) - 2, math.sqrt(11) - 3)


@dataclass(frozen=True)
class LabelSet:
    """The labels that a model knows: name to classes (none: a number), and how often each class is in its data.

    combinations: class numbers of all labels that have classes, in their order, and how often the data have them
    together; empty where labels are independent. quantiles: number to its quantiles in the data, evenly spaced from
    the least to the largest; a number without any is not drawn.
    """

    names: Mapping[str, Sequence[str]]
    counts: Mapping[str, Sequence[int]]
    combinations: Mapping[tuple[int, ...], int] = field(default_factory=dict)
    quantiles: Mapping[str, Sequence[float]] = field(default_factory=dict)

    @classmethod
    def of(cls, description: Mapping[str, Any]) -> LabelSet:
        """The labels that a model's description tells."""
        return cls(
            description["labels"],
            description["label_counts"],
            _from_text(description.get("label_combinations", ())),
            description.get("label_quantiles", {}),
        )

    def resolve(self, label: Label, seed: int, index: int) -> dict[str, str | float]:
        """Label names and values of clip ``index``: those that are given, the others drawn from (seed, index).

        label: a class, ``"name=value name=value"``, or a mapping. Classes are drawn as the data have them together
        with those that are given; where they have them never, each on its own. A number that is neither given nor
        known from the data is left out.
        Raises ValueError with the labels or classes there are for one that is unknown.
        """
        given = self.parse(label)
        resolved = {**self._draw(given, seed, index), **given}
        return {name: resolved[name] for name in self.names if name in resolved}

    def parse(self, label: Label) -> dict[str, str | float]:
        """Returns what a user wrote, by label name; empty for None.

        A class is found as it is written before it is found in letters of another case. Raises ValueError for an
        unknown label or class, and for one that could be several.
        """
        if label is None:
            return {}
        if isinstance(label, Mapping):
            return {name: self._value(name, value) for name, value in label.items()}
        label = class_name(label)
        if (alone := self._alone(label)) is not None:
            return {alone: self._value(alone, label)}
        pairs = re.split(r"(?:^|[\s,]+)(\w+)\s*=\s*", label)
        if len(pairs) < 3 or pairs[0].strip():
            raise ValueError(self._unknown(label))
        return {name: self._value(name, value.strip()) for name, value in zip(pairs[1::2], pairs[2::2], strict=True)}

    def _alone(self, value: str) -> str | None:
        """Returns the name of the label that has a class, None where none has; ValueError where several have."""
        for exact in (True, False):
            owners = [name for name in self.names if self._matching(name, value, exact)]
            if len(owners) > 1:
                raise ValueError(
                    f"{value!r} is a class of {' and of '.join(owners)}: say which, for example {owners[0]}={value}"
                )
            if owners:
                return owners[0]
        return None

    def conditioning(self, labels: Sequence[Mapping[str, str | float]]) -> Conditioning:
        """The conditioning of clips whose labels are resolved; a class that one lacks is not told to the network."""
        tensors = {}
        for name, classes in self.names.items():
            if classes:
                places: dict[Any, int] = {known: place for place, known in enumerate(classes)} | {None: NO_LABEL}
                tensors[name] = torch.tensor([places[label.get(name)] for label in labels])
            else:
                tensors[name] = torch.tensor([float(label.get(name, math.nan)) for label in labels])
        return Conditioning(labels=tensors)

    def _draw(self, given: Mapping[str, str | float], seed: int, index: int) -> dict[str, str | float]:
        named = [name for name, classes in self.names.items() if classes]
        wanted = {
            place: list(self.names[name]).index(str(given[name])) for place, name in enumerate(named) if name in given
        }
        rows = {
            row: count
            for row, count in self.combinations.items()
            if all(row[place] == number for place, number in wanted.items())
        }
        if rows:
            row = _chosen(rows.items(), self._quantile(named[0], seed, index))
            drawn: dict[str, str | float] = {
                name: self.names[name][number] for name, number in zip(named, row, strict=True)
            }
        else:
            drawn = {
                name: _chosen(
                    zip(self.names[name], self.counts.get(name) or [1] * len(self.names[name]), strict=True),
                    self._quantile(name, seed, index),
                )
                for name in named
            }
        for name, values in self.quantiles.items():
            place = self._quantile(name, seed, index) * (len(values) - 1)
            below = int(place)
            value = values[below] + (place - below) * (values[below + 1] - values[below])
            drawn[name] = float(f"{value:.4g}")  # what stands in a file's name and metadata can be asked for again
        return drawn

    def _quantile(self, name: str, seed: int, index: int) -> float:
        # A rotation by an irrational number spreads any run of clips evenly over the classes.
        place = list(self.names).index(name)
        return (seed_offset(seed, place) + index * IRRATIONALS[place % len(IRRATIONALS)]) % 1.0

    def _value(self, name: str, value: Any) -> str | float:
        if name not in self.names:
            raise ValueError(f"the model has no label {name!r}; it knows {', '.join(self.names) or 'none'}")
        if self.names[name]:
            found = self._find(name, value)
            if found is None:
                raise ValueError(self._unknown(class_name(value), (name,)))
            return found
        try:
            number = float(value)
        except (TypeError, ValueError) as error:
            raise ValueError(f"label {name} is a number, got {value!r}") from error
        if (known := self.quantiles.get(name)) and not known[0] <= number <= known[-1]:
            raise ValueError(
                f"label {name} must lie in {known[0]:g} … {known[-1]:g}, what the model was trained on; got {value}"
            )
        return number

    def _find(self, name: str, value: Any) -> str | None:
        """Returns the class that is written, None where there is none; ValueError where it could be several."""
        for exact in (True, False):
            found = self._matching(name, value, exact)
            if len(found) > 1:
                raise ValueError(f"label {name}={value} could be {' or '.join(found)}: write it as it is spelled there")
            if found:
                return found[0]
        return None

    def _matching(self, name: str, value: Any, exact: bool) -> list[str]:
        """Returns the classes that are spelled like a value, or like it but for the case of letters."""
        wanted = class_name(value).strip()
        if exact:
            return [known for known in self.names[name] if known == wanted or class_name(known).strip() == wanted]
        return [known for known in self.names[name] if class_name(known).casefold() == wanted.casefold()]

    def _unknown(self, value: str, names: Sequence[str] = ()) -> str:
        known = {name: self.names[name] for name in names or self.names}
        if not known:
            return f"the model was trained without labels, got label {value!r}; leave the label out"
        every = [label for classes in known.values() for label in classes]
        near = difflib.get_close_matches(value, every, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        listed = "; ".join(f"{name}: {', '.join(classes) or 'a number'}" for name, classes in known.items())
        return f"the model knows no label {value!r}{hint}; it knows {listed}"


def to_text(combinations: Mapping[tuple[int, ...], int]) -> list[str]:
    """Combinations of classes as a model's description holds them: numbers and count, a line each."""
    return [" ".join(map(str, (*row, count))) for row, count in sorted(combinations.items())]


def _from_text(lines: Sequence[str]) -> dict[tuple[int, ...], int]:
    """What ``to_text`` wrote."""
    rows = (tuple(map(int, line.split())) for line in lines)
    return {row[:-1]: row[-1] for row in rows}


def _chosen(weighted: Iterable[tuple[Any, int]], quantile: float) -> Any:
    """The item at a quantile in [0, 1) of items and their counts."""
    items, counts = zip(*weighted, strict=True)
    cumulated = list(accumulate(counts))
    return next(item for item, bound in zip(items, cumulated, strict=True) if quantile * cumulated[-1] < bound)

"""Labels of samples: as users write them, as they are drawn from (seed, k), and as conditioning."""

from __future__ import annotations

import difflib
import math
import re
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from typing import Any

import torch

from scm_media.class_names import class_name
from scm_media.conditioning import NO_LABEL, Conditioning
from scm_media.pipeline.description import ModelDescription
from scm_media.pipeline.randomness import seed_offset
from scm_media.prompts import LABEL as PROMPT
from scm_media.prompts import text_names
from scm_media.text.cleaning import clean_text

Label = str | Mapping[str, Any] | None
IRRATIONALS = (math.sqrt(5) / 2 - 0.5, math.sqrt(2) - 1, math.sqrt(3) - 1, math.sqrt(7) - 2, math.sqrt(11) - 3)


@dataclass(frozen=True)
class LabelSet:
    """The labels of a model.

    names: label to its classes; a label without classes is a number. counts: label to the number of training samples
    of each class. combinations: class numbers of all labels that have classes, in their order, to how often the data
    have them together; empty for independent labels. quantiles: a number to its evenly spaced quantiles in the data,
    from the smallest to the largest; a number without quantiles is not drawn. takes_text: whether the label ``prompt``
    takes any text, and not its classes alone. beside_text: the labels that networks are given beside a text; None for
    all of them.
    """

    names: Mapping[str, Sequence[str]]
    counts: Mapping[str, Sequence[int]]
    combinations: Mapping[tuple[int, ...], int] = field(default_factory=dict)
    quantiles: Mapping[str, Sequence[float]] = field(default_factory=dict)
    takes_text: bool = False
    beside_text: Sequence[str] | None = None

    @classmethod
    def from_description(cls, description: ModelDescription) -> LabelSet:
        """Returns the labels of a model's description."""
        return cls(
            description.labels,
            description.label_counts,
            parse_combinations(description.label_combinations),
            description.label_quantiles,
            description.text is not None,
            None if description.text is None else description.text["labels"],
        )

    def resolve(self, label: Label, seed: int, index: int) -> dict[str, str | float]:
        """Returns label names and values of sample ``index``: the given ones, the others drawn from (seed, index).

        label: a class, ``"name=value name=value"``, or a mapping. Classes are drawn as often as the data have them
        together with the given ones; if the data never have these, each class is drawn on its own. A number that is
        neither given nor has quantiles is left out. With a text only those labels are drawn that the data have together
        with it, and those numbers that networks are given beside it: it says the others itself.
        Raises ValueError, with the labels or classes of the model, for an unknown one.
        """
        given = self.parse(label)
        if self.takes_text and PROMPT in given:
            (name,) = text_names([str(given[PROMPT])])
            if not self._knows_labels_of(name):
                return given
            given = {**given, PROMPT: name}
            drawn = self._draw(given, seed, index)
            kept = {each: value for each, value in drawn.items() if self.names[each] or self._is_beside_text(each)}
            resolved = {**kept, **given}
        else:
            resolved = {**self._draw(given, seed, index), **given}
        return {name: resolved[name] for name in self.names if name in resolved}

    def _knows_labels_of(self, text: str) -> bool:
        """Returns whether the model lists a text, and the labels that its data have together with it."""
        number = self._numbers[PROMPT].get(text)
        if number is None:
            return False
        if not self.combinations:
            return not any(classes for name, classes in self.names.items() if name != PROMPT)
        at = [name for name, classes in self.names.items() if classes].index(PROMPT)
        return bool(self._possible(((at, number),)).items)

    def _is_beside_text(self, name: str) -> bool:
        return self.beside_text is None or name in self.beside_text

    def parse(self, label: Label) -> dict[str, str | float]:
        """Returns the value of each label that a user wrote; empty for None.

        A class that is spelled exactly so comes before one that differs in the case of its letters. Raises ValueError
        for an unknown label or class, and for one that could be several.
        """
        if label is None:
            return {}
        if isinstance(label, Mapping):
            return {name: self._value(name, value) for name, value in label.items()}
        label = class_name(label)
        if (owner := self._find_owner(label)) is not None:
            return {owner: self._value(owner, label)}
        pairs = re.split(r"(?:^|[\s,]+)(\w+)\s*=\s*", label)
        if len(pairs) < 3 or pairs[0].strip():
            raise ValueError(self._unknown(label))
        return {name: self._value(name, value.strip()) for name, value in zip(pairs[1::2], pairs[2::2], strict=True)}

    def _find_owner(self, value: str) -> str | None:
        """Returns the label that has a class, None if there is none; raises ValueError if several labels have it."""
        for exact in (True, False):
            owners = [name for name in self.names if self._find_matching(name, value, exact)]
            if len(owners) > 1:
                raise ValueError(
                    f"{value!r} is a class of {' and of '.join(owners)}: say which, for example {owners[0]}={value}"
                )
            if owners:
                return owners[0]
        return None

    def conditioning(self, labels: Sequence[Mapping[str, str | float]]) -> Conditioning:
        """Returns the conditioning of samples with these resolved labels; a missing class becomes ``NO_LABEL``."""
        tensors = {}
        for name, classes in self.names.items():
            if classes:
                numbers = self._numbers[name]
                given = [label.get(name) for label in labels]
                found = [NO_LABEL if each is None else numbers.get(str(each), NO_LABEL) for each in given]
                tensors[name] = torch.tensor(found)
            else:
                tensors[name] = torch.tensor([float(label.get(name, math.nan)) for label in labels])
        return Conditioning(labels=tensors)

    def _draw(self, given: Mapping[str, str | float], seed: int, index: int) -> dict[str, str | float]:
        named = [name for name, classes in self.names.items() if classes]
        fixed = tuple((at, self._numbers[name][str(given[name])]) for at, name in enumerate(named) if name in given)
        possible = self._possible(fixed)
        drawn: dict[str, str | float]
        if possible.items:
            numbers = possible.at(self._quantile(named[0], seed, index))
            drawn = {name: self.names[name][number] for name, number in zip(named, numbers, strict=True)}
        else:
            drawn = {name: self._alone(name).at(self._quantile(name, seed, index)) for name in named}
        for name, values in self.quantiles.items():
            position = self._quantile(name, seed, index) * (len(values) - 1)
            below = int(position)
            value = values[below] + (position - below) * (values[below + 1] - values[below])
            drawn[name] = float(f"{value:.4g}")  # a file's name and metadata show these digits, and they reproduce it
        return drawn

    @cached_property
    def _numbers(self) -> dict[str, dict[str, int]]:
        """The number of each class by its name, for each label."""
        return {name: {each: number for number, each in enumerate(classes)} for name, classes in self.names.items()}

    @cached_property
    def _drawings(self) -> dict[Any, _Drawing]:
        """Keeps drawings by the labels that are given, since counting anew for each sample takes long."""
        return {}

    def _possible(self, fixed: tuple[tuple[int, int], ...]) -> _Drawing:
        """Returns the combinations in which labels at these places have these numbers."""
        if fixed not in self._drawings:
            every = self.combinations.items()
            found = [(key, count) for key, count in every if all(key[at] == number for at, number in fixed)]
            self._drawings[fixed] = _Drawing.of(found)
        return self._drawings[fixed]

    def _alone(self, name: str) -> _Drawing:
        """Returns the classes of one label."""
        if name not in self._drawings:
            classes = self.names[name]
            self._drawings[name] = _Drawing.of(zip(classes, self.counts.get(name) or [1] * len(classes), strict=True))
        return self._drawings[name]

    def _quantile(self, name: str, seed: int, index: int) -> float:
        # A rotation by an irrational number spreads any run of samples evenly over the classes.
        number = list(self.names).index(name)
        return (seed_offset(seed, number) + index * IRRATIONALS[number % len(IRRATIONALS)]) % 1.0

    def _value(self, name: str, value: Any) -> str | float:
        if name not in self.names:
            raise ValueError(f"the model has no label {name!r}; it knows {', '.join(self.names) or 'none'}")
        if self.takes_text and name == PROMPT:
            return clean_text("" if value is None else value if isinstance(value, str) else str(value))
        if self.names[name]:
            found = self._find(name, value)
            if found is None:
                raise ValueError(self._unknown(class_name(value), (name,)))
            return found
        try:
            number = float(value)
        except (TypeError, ValueError) as error:
            raise ValueError(f"label {name} is a number, got {value!r}") from error
        if (quantiles := self.quantiles.get(name)) and not quantiles[0] <= number <= quantiles[-1]:
            raise ValueError(
                f"label {name} must lie in {quantiles[0]:g} … {quantiles[-1]:g}, what the model was trained on; "
                f"got {value}"
            )
        return number

    def _find(self, name: str, value: Any) -> str | None:
        """Returns the class that is written, None if there is none; raises ValueError if it could be several."""
        for exact in (True, False):
            found = self._find_matching(name, value, exact)
            if len(found) > 1:
                raise ValueError(f"label {name}={value} could be {' or '.join(found)}: write it as it is spelled there")
            if found:
                return found[0]
        return None

    def _find_matching(self, name: str, value: Any, exact: bool) -> list[str]:
        """Returns the classes that are spelled like a value; exact: with the same case of letters."""
        wanted = class_name(value).strip()
        if exact:
            return [each for each in self.names[name] if each == wanted or class_name(each).strip() == wanted]
        return [each for each in self.names[name] if class_name(each).casefold() == wanted.casefold()]

    def _unknown(self, value: str, names: Sequence[str] = ()) -> str:
        searched = {name: self.names[name] for name in names or self.names}
        if not searched:
            return f"the model was trained without labels, got label {value!r}; leave the label out"
        every = [label for classes in searched.values() for label in classes]
        near = difflib.get_close_matches(value, every, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        listed = "; ".join(f"{name}: {', '.join(classes) or 'a number'}" for name, classes in searched.items())
        return f"the model knows no label {value!r}{hint}; it knows {listed}"


class SampleLabels:
    """The labels of samples with these indices; a slice of them is a list of mappings from label to value.

    draw: draws the labels that are not given, each slice when it is asked for: to draw those of a million samples at
    once takes minutes. Raises ValueError for unknown labels, and for a list of labels that does not have one for each
    sample.
    """

    def __init__(
        self, label_set: LabelSet, label: Label | Sequence[Label], seed: int, indices: range, draw: bool
    ) -> None:
        self.label_set, self.seed, self.indices, self.draw = label_set, seed, indices, draw
        one = isinstance(label, str | Mapping) or not isinstance(label, Iterable)  # numbers too: the class 3
        given: list[Any] = [label] if one else list(label)  # type: ignore[arg-type]
        self._same = len(given) == 1 and not isinstance(label, list | tuple)
        if not self._same and len(given) != len(indices):
            raise ValueError(f"got {len(given)} labels for {len(indices)} samples; give one, or one a sample")
        self._given = [label_set.parse(each) for each in given]

    def add(self, more: Mapping[str, Any]) -> None:
        """Gives all samples these labels; the given ones come first."""
        more = self.label_set.parse(more)
        self._given = [{**more, **each} for each in self._given]

    def add_prompts(self, prompt: str | Sequence[str]) -> None:
        """Gives samples a text: all the same one, or several that take turns by the number of the sample.

        Raises ValueError for a model that takes no text, for an empty list, and for values that are no text.
        """
        texts = [prompt] if isinstance(prompt, str) or not isinstance(prompt, Iterable) else list(prompt)
        if PROMPT not in self.label_set.names:
            known = ", ".join(self.label_set.names) or "none"
            raise ValueError(f"the model takes no text (its labels: {known}); leave the prompt out")
        if not texts or not all(isinstance(text, str) for text in texts):
            raise ValueError(f"prompt must be a text or a list of texts, got {prompt!r}")
        if len(texts) == 1:
            self.add({PROMPT: texts[0]})
            return
        parsed = [self.label_set.parse({PROMPT: text}) for text in texts]
        numbers = range(len(self.indices))
        given = [self._given[0 if self._same else number] for number in numbers]
        self._given = [{**parsed[k % len(parsed)], **own} for own, k in zip(given, self.indices, strict=True)]
        self._same = False

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, part: slice) -> list[dict[str, Any]]:
        numbers = range(len(self))[part]
        given = [self._given[0 if self._same else number] for number in numbers]
        if not self.draw:
            return [dict(each) for each in given]
        indices = self.indices[part]
        return [self.label_set.resolve(each, self.seed, k) for each, k in zip(given, indices, strict=True)]


def format_combinations(combinations: Mapping[tuple[int, ...], int]) -> list[str]:
    """Returns combinations of classes as ``model.json`` holds them: class numbers and their count, a text each."""
    return [" ".join(map(str, (*numbers, count))) for numbers, count in sorted(combinations.items())]


def parse_combinations(lines: Sequence[str]) -> dict[tuple[int, ...], int]:
    """Returns the combinations that ``format_combinations`` wrote."""
    parsed = (tuple(map(int, line.split())) for line in lines)
    return {numbers[:-1]: numbers[-1] for numbers in parsed}


@dataclass(frozen=True)
class _Drawing:
    """Items with their counts, cumulated, from which one is drawn."""

    items: tuple[Any, ...]
    bounds: tuple[int, ...]

    @classmethod
    def of(cls, weighted: Iterable[tuple[Any, int]]) -> _Drawing:
        """Returns the drawing of items with their counts."""
        pairs = list(weighted)
        return cls(tuple(item for item, _ in pairs), tuple(accumulate(count for _, count in pairs)))

    def at(self, quantile: float) -> Any:
        """Returns the item at a quantile in [0, 1)."""
        return self.items[bisect_right(self.bounds, quantile * self.bounds[-1])]

"""Texts of examples as the label ``prompt``: each batch draws one of the texts that describe an example.

The texts of a dataset are its captions, and templates that are filled with an example's labels and fields. Their
embeddings are computed once for each text (``scm_media.text``), so that a batch carries numbers of texts alone.
"""

from __future__ import annotations

import functools
import hashlib
import json
import random
import string
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from scm_media.conditioning import NO_LABEL
from scm_media.data.actions import MAX_ACTION_SEQUENCES, ActionBank
from scm_media.data.dataset import Dataset
from scm_media.data.examples import Batch, Example
from scm_media.prompts import LABEL, text_names
from scm_media.text.cleaning import clean_text

NO_TEXT = "no text"
MAX_COMBINATIONS = 16_384
"""Examples at most whose labels and text are listed together, from which labels of samples are drawn."""


@dataclass(frozen=True)
class CaptionTable:
    """The texts of each example.

    texts: all different ones, in order. first: ``(N + 1,)`` int64, where the numbers of each example's texts begin.
    numbers: those of all examples, one after the other. num_unused: texts that examples had no room for.
    """

    texts: tuple[str, ...]
    first: Tensor
    numbers: Tensor
    num_unused: int = 0

    @classmethod
    def of(cls, listed: Sequence[Sequence[str]], texts: Sequence[str], num_unused: int = 0) -> CaptionTable:
        """Returns the table of examples with these texts, which are numbered as ``texts`` lists them."""
        number = {text: place for place, text in enumerate(texts)}
        lengths = torch.tensor([0, *(len(own) for own in listed)], dtype=torch.int64)
        flat = torch.tensor([number[text] for own in listed for text in own], dtype=torch.int64)
        return cls(tuple(texts), lengths.cumsum(0), flat, num_unused)

    def __len__(self) -> int:
        return len(self.first) - 1

    def of_example(self, index: int) -> list[str]:
        """Returns the texts of an example."""
        return [self.texts[number] for number in self.numbers[self.first[index] : self.first[index + 1]].tolist()]

    def draw(self, indices: Sequence[int], generators: Sequence[torch.Generator] | None = None) -> Tensor:
        """Returns the number of a text ``(B,)`` of each example, ``NO_LABEL`` for an example without.

        The generators, one an example, draw it; without them it is the first.
        """
        drawn = []
        for place, index in enumerate(indices):
            begin, end = self.first[index : index + 2].tolist()
            offset = 0
            if generators is not None and end - begin > 1:
                offset = int(torch.randint(end - begin, (), generator=generators[place]))
            drawn.append(int(self.numbers[begin + offset]) if end > begin else NO_LABEL)
        return torch.tensor(drawn, dtype=torch.int64)

    def counts(self) -> tuple[int, ...]:
        """Returns how many examples each text describes."""
        return tuple(torch.bincount(self.numbers, minlength=len(self.texts)).tolist())


class CaptionedDataset(Dataset):
    """The examples of a dataset with one of their texts as the label ``prompt``.

    indices: the examples that are taken. table: their texts. rejected: those that are left out, with the reason.
    """

    def __init__(
        self, dataset: Dataset, indices: Sequence[int], table: CaptionTable, rejected: Sequence[tuple[str, str]] = ()
    ) -> None:
        self.dataset = dataset
        self.caption_table = self._table = table
        self._indices = None if len(indices) == len(dataset) else list(indices)
        self.label_names = {**dataset.label_names, LABEL: text_names(table.texts)}
        self.label_counts = {**_counts(dataset, self._indices), LABEL: table.counts()}
        self.shape, self.has_samples, self.action_names = dataset.shape, dataset.has_samples, dataset.action_names
        self._without_text = list(rejected)
        self._count_rejects()
        buckets = dataset.buckets
        self.buckets = buckets if buckets is None or self._indices is None else buckets[self._indices]

    def _count_rejects(self) -> None:
        own = {NO_TEXT: len(self._without_text)} if self._without_text else {}
        self.rejects = {**self.dataset.rejects, **own}
        self.rejected = [*self.dataset.rejected, *self._without_text]

    def _inner(self, indices: Sequence[int]) -> list[int]:
        return list(indices) if self._indices is None else [self._indices[index] for index in indices]

    def __len__(self) -> int:
        return len(self._table)

    def __getitem__(self, index: int) -> Example:
        (inner,) = self._inner([index])
        example = self.dataset[inner]
        return replace(example, labels={**example.labels, LABEL: int(self._table.draw([index])[0])})

    def batch(self, indices: Sequence[int], generators: Sequence[torch.Generator] | None = None) -> Batch:
        """Returns the batch of these examples; the generators draw their texts after their augmentation."""
        batch = self.dataset.batch(self._inner(indices), generators)
        return replace(batch, labels={**batch.labels, LABEL: self._table.draw(indices, generators)})

    @property
    def label_combinations(self) -> Mapping[tuple[int, ...], int]:
        """The class numbers of examples and of their first texts; of every k-th example where there are many."""
        names = [name for name, classes in self.label_names.items() if classes]
        if len(names) < 2:
            return {}
        of_classes = [name for name in names if name != LABEL]
        step = -(-len(self) // MAX_COMBINATIONS)
        chosen = range(0, len(self), step)
        texts = self._table.draw(chosen)
        classes = [self._class_numbers(name, chosen) for name in of_classes]
        rows = torch.stack([*classes, texts], 1).tolist()
        return dict(Counter(tuple(row) for row in rows if row[-1] != NO_LABEL))

    def _class_numbers(self, name: str, indices: Sequence[int]) -> Tensor:
        numbers = {label: number for number, label in enumerate(self.label_names[name])}
        return torch.tensor([numbers[self.dataset.fields(index)[name]] for index in self._inner(indices)])

    @property
    def label_quantiles(self) -> Mapping[str, Sequence[float]]:
        """The quantiles of the dataset's own numbers."""
        return self.dataset.label_quantiles

    def captions(self) -> Sequence[tuple[str, ...]]:
        return [tuple(self._table.of_example(index)) for index in range(len(self))]

    def fields(self, index: int) -> Mapping[str, str]:
        return self.dataset.fields(self._inner([index])[0])

    def fingerprint(self) -> str | None:
        """Returns the dataset's digest with one of the texts and of who has them."""
        if (inner := self.dataset.fingerprint()) is None:
            return None
        digest = hashlib.blake2b(json.dumps(self._table.texts).encode(), digest_size=8)
        for tensor in (self._table.first, self._table.numbers, torch.tensor(self._indices or [])):
            digest.update(tensor.to(torch.int64).numpy().tobytes())
        return f"{inner}-{digest.hexdigest()}"

    def versions(self) -> Tensor:
        found = self.dataset.versions()
        return found if self._indices is None or not len(found) else found[self._indices]

    def action_bank(self, num: int = MAX_ACTION_SEQUENCES) -> ActionBank:
        return self.dataset.action_bank(num)

    def count_skipped(self, skipped: Sequence[tuple[str, str]]) -> None:
        self.dataset.count_skipped(skipped)
        self._count_rejects()


def add_captions(
    splits: Mapping[str, Dataset], templates: Sequence[str] = (), per_example: int = 8, missing: str = "leave_out"
) -> dict[str, CaptionedDataset]:
    """Returns the splits of a dataset with texts as their label ``prompt``, numbered alike in all of them.

    templates: texts with names of labels and fields in braces (``"a {family} note"``); one that names what an example
    lacks is not filled for it. per_example: texts of an example at most, captions first; of more each example has some,
    chosen by its number, and the others are counted. missing: "leave_out" leaves examples without any text out and
    counts them, and "unconditional" takes them as examples of no text. Raises ValueError for a template that cannot be
    filled, and for data without any text.
    """
    for template in templates:
        _names_in(template)
    listed, unused = {}, {}
    for split, data in splits.items():
        listed[split], unused[split] = _texts_of(data, templates, per_example)
    texts = sorted({text for of_split in listed.values() for own in of_split for text in own})
    if not texts:
        known = ", ".join(next(iter(splits.values())).fields(0)) or "none"
        raise ValueError(
            "the data have no texts: put NAME.txt beside each file, or a column caption into the manifest, or set "
            f"text.templates=[...] with names in braces (there are: {known})"
        )
    found = {}
    for split, data in splits.items():
        own = listed[split]
        kept = [index for index, its in enumerate(own) if its or missing == "unconditional"]
        if not kept:
            raise ValueError(f"no example of the split {split} has a text; set text.missing=unconditional, or add some")
        left_out = sorted(set(range(len(own))) - set(kept))
        rejected = [(f"example {index} of {split}", NO_TEXT) for index in left_out]
        table = CaptionTable.of([own[index] for index in kept], texts, unused[split])
        found[split] = CaptionedDataset(data, kept, table, rejected)
    return found


def fill_templates(values: Mapping[str, str], templates: Sequence[str]) -> list[str]:
    """Returns the templates whose names an example has, filled with its values (``Dataset.fields``) and cleaned."""
    usable = [template for template in templates if all(values.get(name) for name in _names_in(template))]
    return [clean_text(template.format_map(dict(values))) for template in usable]


def _texts_of(data: Dataset, templates: Sequence[str], per_example: int) -> tuple[list[list[str]], int]:
    """Returns the texts of each example, and the number of those that had no room."""
    found, unused = [], 0
    for index, captions in enumerate(data.captions()):
        texts = list(dict.fromkeys(text for caption in captions if (text := clean_text(caption))))
        filled = fill_templates(data.fields(index), templates) if templates else []
        filled = [text for text in dict.fromkeys(filled) if text not in texts]
        unused += max(0, len(texts) + len(filled) - per_example)
        texts = _choose(texts, per_example, index)
        found.append(texts + _choose(filled, per_example - len(texts), index))
    if templates and not any(found) and len(data):
        lacking = {name for template in templates for name in _names_in(template)} - data.fields(0).keys()
        raise ValueError(
            f"text.templates: the data have no {', '.join(sorted(lacking))}; there are "
            f"{', '.join(data.fields(0)) or 'no labels'} (data.fields names more columns of a manifest)"
        )
    return found, unused


def _choose(texts: list[str], room: int, index: int) -> list[str]:
    """Returns at most ``room`` of the texts in their order, another choice for each example where there are more."""
    if len(texts) <= room:
        return texts
    order = random.Random(index).sample(range(len(texts)), max(0, room))
    return [texts[place] for place in sorted(order)]


@functools.cache
def _names_in(template: str) -> tuple[str, ...]:
    """Returns the names that a template has in braces; raises ValueError for anything else in braces."""
    try:
        parts: list[Any] = list(string.Formatter().parse(template))
    except ValueError as error:
        raise ValueError(f"text.templates: {template!r} cannot be read ({error}); write names as {{name}}") from error
    names = tuple(name for _, name, _, _ in parts if name is not None)
    if wrong := [name for name in names if not name.isidentifier()]:
        raise ValueError(f"text.templates: {template!r} has {{{wrong[0]}}}, expected the name of a label or field")
    if any(spec or conversion for _, _, spec, conversion in parts):
        raise ValueError(f"text.templates: {template!r} has a format beside a name, expected the name alone")
    return names


def _counts(dataset: Dataset, indices: Sequence[int] | None) -> Mapping[str, tuple[int, ...]]:
    """Returns the counts of the classes of these examples."""
    if indices is None:
        return dataset.label_counts
    found = {}
    for name, classes in dataset.label_names.items():
        counted = Counter(dataset.fields(index)[name] for index in indices) if classes else Counter()
        found[name] = tuple(counted[each] for each in classes)
    return found

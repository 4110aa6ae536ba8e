"""A dataset of files: read when they are asked for, looked at once when it is opened, rejects counted by reason."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path

import torch

from scm_media.data.examples import Batch, Example, check_split, collate
from scm_media.interfaces import Modality


@dataclass(frozen=True)
class Entry:
    """One file and what is said of it: class names (str) and scalars (float) by label."""

    path: Path
    name: str
    labels: Mapping[str, str | float] = field(default_factory=dict)
    caption: str | None = None


class Rejects:
    """What was left out: counted by reason, listed by source."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.listed: list[tuple[str, str]] = []

    def add(self, source: object, reason: str, detail: str = "") -> None:
        """One more source left out; ``detail`` is listed and not counted by."""
        self.counts[reason] += 1
        self.listed.append((str(source), f"{reason}: {detail}" if detail else reason))

    def refuse(self, source: object, remedy: str) -> ValueError:
        """The error for a source of which nothing is left."""
        reasons = ", ".join(f"{count} {reason}" for reason, count in self.counts.most_common()) or "it is empty"
        first = f" (first: {self.listed[0][0]})" if self.listed else ""
        return ValueError(f"nothing in {source} can be used: {reasons}{first}; {remedy}")


class FileDataset:
    """The examples of some files, in the order of their names.

    label_names: label to its classes, ``()`` for a scalar, None to take the classes that the usable files have.
    held_out: the part of the files, in (0, 1), that the split "held_out" has and "train" has not; which ones depends
    on their names alone. verify: read every file now and leave out what cannot be read; without it such a file stops
    the run that meets it (ValueError).
    """

    def __init__(
        self,
        entries: Sequence[Entry],
        modality: Modality,
        label_names: Mapping[str, Sequence[str] | None],
        source: object,
        rejects: Rejects,
        split: str = "train",
        held_out: float = 0.02,
        verify: bool = True,
    ) -> None:
        check_split(split)
        if not 0 < held_out < 1:
            raise ValueError(f"data.held_out must lie between 0 and 1, got {held_out}")
        usable = sorted(_readable(entries, modality, rejects) if verify else entries, key=lambda entry: entry.name)
        if not usable:
            kinds = ", ".join(sorted(modality.suffixes))
            raise rejects.refuse(source, f"check data.root; files of {modality.name}: {kinds}")
        self.modality = modality
        self.shape = modality.shape()
        self.label_names = {
            name: tuple(sorted({str(entry.labels[name]) for entry in usable}) if classes is None else classes)
            for name, classes in label_names.items()
        }
        self.rejects: Mapping[str, int] = dict(rejects.counts)
        self.rejected: Sequence[tuple[str, str]] = rejects.listed
        self._entries = _part(usable, split, held_out, source)
        self._numbers = {
            name: {label: number for number, label in enumerate(classes)} for name, classes in self.label_names.items()
        }
        self.label_counts = {name: self._count(name) for name in self.label_names}

    def _count(self, name: str) -> tuple[int, ...]:
        counts = Counter(entry.labels[name] for entry in self._entries)
        return tuple(counts[label] for label in self.label_names[name])

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index: int) -> Example:
        return self._read(index, None)

    def batch(self, indices: Sequence[int], generators: Sequence[torch.Generator] | None = None) -> Batch:
        """The batch of these examples; ``generators``, one an example, make their augmentation."""
        each = generators or repeat(None, len(indices))
        return collate([self._read(index, generator) for index, generator in zip(indices, each, strict=True)])

    def _read(self, index: int, generator: torch.Generator | None) -> Example:
        entry = self._entries[index]
        labels = {
            name: float(entry.labels[name]) if not numbers else numbers[str(entry.labels[name])]
            for name, numbers in self._numbers.items()
        }
        sample = self.modality.conform(self.modality.read(entry.path), generator)
        return Example(sample, labels, entry.caption, str(entry.path))


_faults: dict[int, tuple[Modality, dict[tuple[str, int, int], str]]] = {}
"""Per modality, what was wrong with a file of this path, size and time of change, so that both splits of a dataset
read it once. The modality is kept, since another could be given its id."""


def _readable(entries: Sequence[Entry], modality: Modality, rejects: Rejects) -> list[Entry]:
    """The entries whose files the modality reads; the others are counted."""
    _, known = _faults.setdefault(id(modality), (modality, {}))

    def fault(entry: Entry) -> str:
        status = entry.path.stat()
        key = (str(entry.path), status.st_size, status.st_mtime_ns)
        if key not in known:
            try:
                modality.read(entry.path)
                known[key] = ""
            except (ValueError, OSError) as error:
                known[key] = str(error).replace(str(entry.path), entry.path.name)
        return known[key]

    def judge(entry: Entry) -> tuple[str, str]:
        if not entry.path.is_file():
            return "missing file", ""
        found = fault(entry)
        return ("undecodable", found) if found else ("", "")

    usable = []
    with ThreadPoolExecutor(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None) as pool:
        for entry, (reason, detail) in zip(entries, pool.map(judge, entries), strict=True):
            if reason:
                rejects.add(entry.path, reason, detail)
            else:
                usable.append(entry)
    return usable


def _part(entries: list[Entry], split: str, held_out: float, source: object) -> list[Entry]:
    """The entries of a split: those whose names hash lowest are held out, at least one, never all."""
    if len(entries) < 2:
        raise ValueError(f"{source} has one usable file, expected at least two: one to train on, one to hold out")
    num_held_out = min(max(1, round(len(entries) * held_out)), len(entries) - 1)
    by_hash = sorted(entries, key=lambda entry: hashlib.blake2b(entry.name.encode("utf-8", "surrogateescape")).digest())
    chosen = {entry.name for entry in by_hash[:num_held_out]}
    return [entry for entry in entries if (entry.name in chosen) == (split == "held_out")]

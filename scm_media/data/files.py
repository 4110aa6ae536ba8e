"""A dataset of files: read when they are asked for, looked at once when it is opened, rejects counted by reason."""

from __future__ import annotations

import hashlib
import json
import math
import os
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import repeat

import torch
from torch.utils.data import get_worker_info

from scm_media.class_names import name_bytes, names_of
from scm_media.data.dataset import Dataset, check_split
from scm_media.data.entries import Entry, Rejects
from scm_media.data.examples import Batch, Example, collate
from scm_media.data.labelling import check_new, measured
from scm_media.data.validation import find_usable
from scm_media.display import printable
from scm_media.modality import Modality

NUM_QUANTILES = 11
MOST_SKIPPED = 16
"""Files all over the data that are tried in place of one: when none can be read, it is the disk that is gone."""
GOLDEN = 0.618
SKIPPED = "unreadable since the data was opened"


class FileDataset(Dataset):
    """The examples of some files, in the order of their names.

    label_names: label to its classes, ``()`` for a scalar, None to take the classes that the usable files have.
    held_out: the part of the files, in (0, 1), that the split "held_out" has and "train" has not; which ones depends
    on their names alone, or on their groups' where they have one. verify: look at every file now, and count and leave
    out those that cannot be used. measures: what the modality measures of each file and is a scalar label of the same
    name.

    A file that cannot be read when it is asked for (it has changed since, or ``verify`` is false) is counted, named
    once on standard error, and another file of the same bucket takes its place, always the same one. So the order of
    all others stays a function of (seed, rank, step). Raises ValueError where 16 files tried so cannot be read.
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
        measures: Sequence[str] = (),
    ) -> None:
        check_split(split)
        if not 0 < held_out < 1:
            raise ValueError(f"data.held_out must lie between 0 and 1, got {held_out}")
        measures = names_of(measures, "data.measures")
        check_new(measures, list(label_names), "measures")
        label_names = {**label_names, **dict.fromkeys(measures, ())}
        with ThreadPoolExecutor(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None) as pool:
            found, buckets = find_usable(entries, modality, verify, rejects, pool)
            bucket_of = {entry.name: bucket for entry, bucket in zip(found, buckets, strict=False)}
            kept = sorted(measured(found, modality, measures, rejects, pool), key=lambda entry: entry.name)
        if not kept:
            kinds = ", ".join(sorted(modality.suffixes))
            raise rejects.refuse(source, f"check data.root; files of {modality.name}: {kinds}")
        self.modality = modality
        self.shape = modality.shape()
        self.label_names = {
            name: _in_order({str(entry.labels[name]) for entry in kept}) if classes is None else tuple(classes)
            for name, classes in label_names.items()
        }
        self.rejects: dict[str, int] = dict(rejects.counts)
        self.rejected: list[tuple[str, str]] = rejects.listed
        self._entries = _part(kept, split, held_out, source)
        self._numbers = {
            name: {label: number for number, label in enumerate(classes)} for name, classes in self.label_names.items()
        }
        self.label_counts = {name: self._count(name) for name in self.label_names}
        self.buckets = torch.tensor([bucket_of[entry.name] for entry in self._entries]) if buckets else None

    def class_numbers(self, name: str, places: Sequence[int]) -> torch.Tensor:
        """The class numbers ``(N,)`` int64 of a label that has classes, of the examples at these places."""
        return torch.tensor([self._numbers[name][str(self._entries[place].labels[name])] for place in places])

    def _count(self, name: str) -> tuple[int, ...]:
        counts = Counter(entry.labels[name] for entry in self._entries)
        return tuple(counts[label] for label in self.label_names[name])

    @property
    def label_combinations(self) -> dict[tuple[int, ...], int]:
        """How often classes of several labels occur together; empty where fewer than two labels have classes."""
        named = {name: numbers for name, numbers in self._numbers.items() if numbers}
        if len(named) < 2:
            return {}
        return dict(
            Counter(
                tuple(numbers[str(entry.labels[name])] for name, numbers in named.items()) for entry in self._entries
            )
        )

    @property
    def label_quantiles(self) -> dict[str, list[float]]:
        """Scalar label to its quantiles, evenly spaced from the least to the largest."""
        scalars = [name for name, numbers in self._numbers.items() if not numbers]
        spaced = torch.linspace(0, 1, NUM_QUANTILES, dtype=torch.float64)
        found = {}
        for name in scalars:
            values = torch.tensor([float(entry.labels[name]) for entry in self._entries], dtype=torch.float64)
            places = (spaced * (len(values) - 1)).round().long()
            found[name] = values.sort().values[places].tolist()
        return found

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index: int) -> Example:
        return self._read_or_replace(index, None)

    def batch(self, indices: Sequence[int], generators: Sequence[torch.Generator] | None = None) -> Batch:
        pairs = zip(indices, generators or repeat(None, len(indices)), strict=True)
        return collate([self._read_or_replace(index, generator) for index, generator in pairs])

    def fingerprint(self) -> str:
        """What tells these examples from others: a digest of their names, labels, captions, sizes in bytes.

        A file that was changed and kept its size is not noticed.
        """
        digest = hashlib.blake2b(json.dumps(self.label_names).encode(), digest_size=16)
        for entry in self._entries:
            told = [entry.name, sorted(entry.labels.items()), entry.caption, entry.size]
            digest.update(json.dumps(told).encode())
        return digest.hexdigest()

    def versions(self) -> torch.Tensor:
        """Returns ``(N, 2)`` int64: a hash of each example as ``fingerprint`` tells it, and its file's time of change.

        The time is in nanoseconds since 1970.
        """
        rows = []
        for entry in self._entries:
            _, size, changed = entry.version
            told = json.dumps([entry.name, sorted(entry.labels.items()), entry.caption, size]).encode()
            rows.append((int.from_bytes(hashlib.blake2b(told, digest_size=8).digest(), "big", signed=True), changed))
        return torch.tensor(rows, dtype=torch.int64).reshape(-1, 2)

    def _read_or_replace(self, index: int, generator: torch.Generator | None) -> Example:
        """Returns the example of this index, or another one where its file cannot be read."""
        skipped: list[tuple[str, str]] = []
        for candidate in self._candidates(index):
            try:
                example = self._read(candidate, generator)
            except (ValueError, OSError) as error:
                skipped.append((self._entries[candidate].source, str(error)))
                if len(skipped) == MOST_SKIPPED:
                    break
            else:
                self.count_skipped(skipped)
                return replace(example, skipped=tuple(skipped)) if skipped else example
        raise ValueError(
            f"{len(skipped)} files, tried one in place of the other, cannot be read (first: "
            f"{printable(skipped[0][1])}); scm-media check names all that cannot be used"
        )

    def _candidates(self, index: int) -> Iterator[int]:
        """Yields an index, then all others of its bucket, far from each other: neighbours fail together."""
        num = len(self)
        stride = next(stride for stride in range(round(GOLDEN * num), num + 1) if math.gcd(stride, num) == 1)
        for step in range(num):
            candidate = (index + step * stride) % num
            if self.buckets is None or self.buckets[candidate] == self.buckets[index]:
                yield candidate

    def count_skipped(self, skipped: Sequence[tuple[str, str]]) -> None:
        """Counts files that cannot be read any more, given with what is wrong, and names each on standard error once.

        A worker counts for itself and is silent: what it skipped comes along with its batch.
        """
        known = {source for source, _ in self.rejected} if skipped else set()
        for source, problem in skipped:
            if source not in known:
                known.add(source)
                self.rejects[SKIPPED] = self.rejects.get(SKIPPED, 0) + 1
                self.rejected.append((source, f"{SKIPPED}: {problem}"))
                if get_worker_info() is None:
                    print(f"{printable(problem)} (left out: another file takes its place)", file=sys.stderr)

    def _read(self, index: int, generator: torch.Generator | None) -> Example:
        entry = self._entries[index]
        labels = {
            name: float(entry.labels[name]) if not numbers else numbers[str(entry.labels[name])]
            for name, numbers in self._numbers.items()
        }
        sample, padding_mask = entry.read_transformed(self.modality, generator)
        return Example(sample, labels, entry.caption, entry.source, padding_mask)


def _in_order(classes: set[str]) -> tuple[str, ...]:
    """Class names sorted: by value where all are whole numbers, so that 10 comes after 9."""
    if all(name.isdecimal() for name in classes):
        return tuple(sorted(classes, key=lambda name: (int(name), name)))
    return tuple(sorted(classes))


def _part(entries: list[Entry], split: str, held_out: float, source: object) -> list[Entry]:
    """The entries of a split: groups (single names) are held out from the lowest hash on, until enough are.

    At least one entry is held out and one is not; ValueError where that cannot be.
    """
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        groups.setdefault(entry.name if entry.group is None else f"group {entry.group}", []).append(entry)
    if len(groups) < 2:
        what = "one usable file" if len(entries) < 2 else "usable files of one group alone"
        raise ValueError(f"{source} has {what}, expected at least two: one to train on, one to hold out")
    wanted = max(1, round(len(entries) * held_out))
    by_hash = sorted(groups, key=lambda name: hashlib.blake2b(name_bytes(name)).digest())
    chosen: set[str] = set()
    for name in by_hash[:-1]:
        if len(chosen) >= wanted:
            break
        chosen.update(entry.name for entry in groups[name])
    return [entry for entry in entries if (entry.name in chosen) == (split == "held_out")]

"""The base class of datasets of files, which are checked when the dataset is opened and read when they are used."""

from __future__ import annotations

import hashlib
import json
import math
import os
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import repeat

import torch
from torch.utils.data import get_worker_info

from scm_media.class_names import name_bytes, names_of
from scm_media.data.dataset import Dataset, check_split
from scm_media.data.entries import Entry, Rejects
from scm_media.data.examples import Batch, Example, collate
from scm_media.data.labelling import add_measures, check_new
from scm_media.data.validation import find_usable
from scm_media.display import printable
from scm_media.modality import Modality

NUM_QUANTILES = 11
MAX_SKIPPED = 16
"""Files all over the data that are tried in place of one: when none can be read, the disk is gone."""
GOLDEN = 0.618
SKIPPED = "unreadable since the data was opened"


@dataclass(frozen=True)
class Listing:
    """The files that a folder, a manifest or shards list.

    label_names: label to its classes, ``()`` for a scalar, None to take the classes that the usable files have.
    source: the folder or file that lists them, for errors. rejects: the files that were left out so far.
    """

    entries: Sequence[Entry]
    label_names: Mapping[str, Sequence[str] | None]
    source: object
    rejects: Rejects


class FileDataset(Dataset):
    """The examples of the files of a listing, in the order of their names.

    held_out: the fraction of the files, in (0, 1), that the split "held_out" has and "train" has not; a file's name, or
    its group's, alone decides. verify: validate every file now, and count and leave out those that cannot be used.
    measures: numbers that the modality measures of each file, which become scalar labels of the same name.

    A file that cannot be read later (it has changed since, or ``verify`` is false) is counted, named once on standard
    error, and replaced by another file of the same bucket, always the same one. So the order of all others stays a
    function of (seed, rank, step). Raises ValueError where 16 files tried so cannot be read.
    """

    def __init__(
        self,
        listing: Listing,
        modality: Modality,
        split: str = "train",
        held_out: float = 0.02,
        verify: bool = True,
        measures: Sequence[str] = (),
    ) -> None:
        check_split(split)
        if not 0 < held_out < 1:
            raise ValueError(f"data.held_out must lie between 0 and 1, got {held_out}")
        rejects, measures = listing.rejects, names_of(measures, "data.measures")
        check_new(measures, list(listing.label_names), "measures")
        with ThreadPoolExecutor(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None) as pool:
            found, buckets = find_usable(listing.entries, modality, verify, rejects, pool)
            bucket_of = {entry.name: bucket for entry, bucket in zip(found, buckets, strict=False)}
            kept = sorted(add_measures(found, modality, measures, rejects, pool), key=lambda entry: entry.name)
        if not kept:
            kinds = ", ".join(sorted(modality.suffixes))
            raise rejects.make_error(listing.source, f"check data.root; files of {modality.name}: {kinds}")
        self.modality, self.shape = modality, modality.shape()
        self.label_names = {
            name: _sort_classes({str(entry.labels[name]) for entry in kept}) if classes is None else tuple(classes)
            for name, classes in {**listing.label_names, **dict.fromkeys(measures, ())}.items()
        }
        self.rejects: dict[str, int] = dict(rejects.counts)
        self.rejected: list[tuple[str, str]] = rejects.listed
        self._entries = _take_split(kept, split, held_out, listing.source)
        self._numbers = {
            name: {label: number for number, label in enumerate(classes)} for name, classes in self.label_names.items()
        }
        self.label_counts = {name: self._count(name) for name in self.label_names}
        self.buckets = torch.tensor([bucket_of[entry.name] for entry in self._entries]) if buckets else None

    def class_numbers(self, name: str, indices: Sequence[int]) -> torch.Tensor:
        """Returns the class numbers ``(N,)`` int64 of these examples for a label that has classes."""
        return torch.tensor([self._numbers[name][str(self._entries[index].labels[name])] for index in indices])

    def _count(self, name: str) -> tuple[int, ...]:
        counts = Counter(entry.labels[name] for entry in self._entries)
        return tuple(counts[label] for label in self.label_names[name])

    @property
    def label_combinations(self) -> dict[tuple[int, ...], int]:
        """The counts of ``Dataset.label_combinations``, empty where fewer than two labels have classes."""
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
        """Eleven quantiles of each scalar label, from the least value to the largest."""
        scalars = [name for name, numbers in self._numbers.items() if not numbers]
        spaced = torch.linspace(0, 1, NUM_QUANTILES, dtype=torch.float64)
        found = {}
        for name in scalars:
            values = torch.tensor([float(entry.labels[name]) for entry in self._entries], dtype=torch.float64)
            found[name] = values.sort().values[(spaced * (len(values) - 1)).round().long()].tolist()
        return found

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index: int) -> Example:
        return self._read_or_replace(index, None)

    def batch(self, indices: Sequence[int], generators: Sequence[torch.Generator] | None = None) -> Batch:
        pairs = zip(indices, generators or repeat(None, len(indices)), strict=True)
        return collate([self._read_or_replace(index, generator) for index, generator in pairs])

    def captions(self) -> list[tuple[str, ...]]:
        return [entry.captions for entry in self._entries]

    def fields(self, index: int) -> dict[str, str]:
        entry = self._entries[index]
        labels = {
            name: f"{value:g}" if isinstance(value, float) else str(value) for name, value in entry.labels.items()
        }
        return {**entry.fields, **labels}

    def fingerprint(self) -> str:
        """Returns a digest of the files' names, labels, captions and sizes in bytes.

        It does not notice a file that was changed and kept its size.
        """
        digest = hashlib.blake2b(json.dumps(self.label_names).encode(), digest_size=16)
        for entry in self._entries:
            digest.update(_describe(entry, entry.size))
        return digest.hexdigest()

    def versions(self) -> torch.Tensor:
        """Returns ``(N, 2)`` int64: a hash of each example, and its file's time of change in ns since 1970."""
        found = []
        for entry in self._entries:
            _, size, changed = entry.version
            digest = hashlib.blake2b(_describe(entry, size), digest_size=8).digest()
            found.append((int.from_bytes(digest, "big", signed=True), changed))
        return torch.tensor(found, dtype=torch.int64).reshape(-1, 2)

    def _read_or_replace(self, index: int, generator: torch.Generator | None) -> Example:
        """Returns the example of this index, or another one where its file cannot be read."""
        skipped: list[tuple[str, str]] = []
        for candidate in self._candidates(index):
            try:
                example = self._read(candidate, generator)
            except (ValueError, OSError) as error:
                skipped.append((self._entries[candidate].source, str(error)))
                if len(skipped) == MAX_SKIPPED:
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
        return Example(sample, labels, entry.source, padding_mask)


def _describe(entry: Entry, size: int) -> bytes:
    return json.dumps([entry.name, sorted(entry.labels.items()), entry.caption, size]).encode()


def _sort_classes(classes: set[str]) -> tuple[str, ...]:
    """Returns class names in order: by value where all are whole numbers, so that 10 comes after 9."""
    if all(name.isdecimal() for name in classes):
        return tuple(sorted(classes, key=lambda name: (int(name), name)))
    return tuple(sorted(classes))


def _take_split(entries: list[Entry], split: str, held_out: float, source: object) -> list[Entry]:
    """Returns the entries of a split; groups, or single names, are held out from the lowest hash on, until enough are.

    At least one entry is held out and one is not; raises ValueError where that cannot be.
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

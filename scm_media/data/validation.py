"""Looks at files when a dataset is opened, so that what cannot be used is counted and left out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import Any

from scm_media.data.entries import Entry, Rejects
from scm_media.display import printable
from scm_media.modality import Modality
from scm_media.progress import Progress

CHUNK = 4096
"""Files that wait to be looked at: a million at once would take more memory than their names."""

SECONDS_BEFORE_PROGRESS = 5.0
"""Seconds without a word before it is said how many files were looked at."""


@dataclass(frozen=True)
class Inspection:
    """The result of looking at a file: the reason to leave it out ("" for none) with a detail, else its bucket."""

    reason: str = ""
    detail: str = ""
    bucket: int = 0


def find_usable(
    entries: Sequence[Entry], modality: Modality, verify: bool, rejects: Rejects, pool: Executor
) -> tuple[list[Entry], list[int]]:
    """Returns the entries whose files the modality can use, and their buckets; the others are counted among rejects.

    verify: each file is validated. Without it, only the bucket is read, where the modality has buckets.
    """
    has_buckets = modality.buckets is not None
    if not verify and not has_buckets:
        return list(entries), []
    inspect = partial(_inspect, modality=modality, verify=verify, known=modality.inspections)
    found, buckets = [], []
    looked, progress = 0, Progress(SECONDS_BEFORE_PROGRESS)
    progress("files looked at", looked, len(entries))
    for start in range(0, len(entries), CHUNK):
        chunk = entries[start : start + CHUNK]
        for entry, inspection in zip(chunk, pool.map(inspect, chunk), strict=True):
            looked += 1
            progress("files looked at", looked, len(entries))
            if inspection.reason:
                rejects.add(entry.source, inspection.reason, inspection.detail)
            else:
                found.append(entry)
                buckets.append(inspection.bucket)
    return found, buckets if has_buckets else []


def _inspect(entry: Entry, modality: Modality, verify: bool, known: dict[Any, Inspection]) -> Inspection:
    """Returns the result of looking at a file, from ``known`` where this version of it was looked at before."""
    try:
        if entry.path.is_dir():
            if not modality.is_sample_dir(entry.path):
                return Inspection("folder that is not one sample")
        elif not entry.path.is_file():
            return Inspection("missing file")
        key = entry.version, verify
    except (OSError, ValueError) as error:  # no permission, a name that no file can have, gone meanwhile
        return Inspection("unreadable file", _detail(error, entry))
    if key not in known:
        try:
            if verify:
                entry.validate(modality)
            known[key] = Inspection(bucket=0 if modality.buckets is None else entry.bucket(modality))
        except ValueError as error:
            known[key] = Inspection(getattr(error, "reason", "undecodable"), _detail(error, entry))
    return known[key]


def _detail(error: Exception, entry: Entry) -> str:
    """Returns what went wrong, without the folder that stands in the source's name already."""
    text = str(getattr(error, "strerror", None) or error)
    return text.replace(f"{printable(str(entry.path.parent))}{os.sep}", "")

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
from scm_media.interfaces import Modality

CHUNK = 4096
"""Files that wait to be looked at: a million at once would take more memory than their names."""


@dataclass(frozen=True)
class Verdict:
    """The result of looking at a file: the reason to leave it out ("" for none) with a detail, else its bucket."""

    reason: str = ""
    detail: str = ""
    bucket: int = 0


_known: dict[int, tuple[Modality, dict[Any, Verdict]]] = {}
"""Per modality the verdicts on files of a path, size and time of change, so that both splits of a dataset look at a
file once. The modality is kept, since another could be given its id."""


def usable(
    entries: Sequence[Entry], modality: Modality, verify: bool, rejects: Rejects, pool: Executor
) -> tuple[list[Entry], list[int]]:
    """Returns the entries whose files the modality can use and their buckets; the others are counted.

    verify: each file is probed. Without it, only the bucket is read, where the modality has buckets.
    """
    has_buckets = getattr(modality, "buckets", None) is not None
    if not verify and not has_buckets:
        return list(entries), []
    _, known = _known.setdefault(id(modality), (modality, {}))
    judge = partial(_judged, modality=modality, verify=verify, has_buckets=has_buckets, known=known)
    found, buckets = [], []
    for start in range(0, len(entries), CHUNK):
        chunk = entries[start : start + CHUNK]
        for entry, verdict in zip(chunk, pool.map(judge, chunk), strict=True):
            if verdict.reason:
                rejects.add(entry.source, verdict.reason, verdict.detail)
            else:
                found.append(entry)
                buckets.append(verdict.bucket)
    return found, buckets if has_buckets else []


def _judged(entry: Entry, modality: Any, verify: bool, has_buckets: bool, known: dict[Any, Verdict]) -> Verdict:
    try:
        if not entry.path.is_file() and not (entry.path.is_dir() and hasattr(modality, "holds")):
            return Verdict("missing file")
        key = entry.version, verify
    except (OSError, ValueError) as error:  # no permission, a name that no file can have, gone meanwhile
        return Verdict("unreadable file", _detail(error, entry))
    if key not in known:
        try:
            if verify:
                entry.validate(modality)
            known[key] = Verdict(bucket=entry.bucket(modality) if has_buckets else 0)
        except ValueError as error:
            known[key] = Verdict(getattr(error, "reason", "undecodable"), _detail(error, entry))
    return known[key]


def _detail(error: Exception, entry: Entry) -> str:
    """Returns what went wrong, without the folder that stands in the source's name already."""
    text = str(getattr(error, "strerror", None) or error)
    return text.replace(f"{printable(str(entry.path.parent))}{os.sep}", "")

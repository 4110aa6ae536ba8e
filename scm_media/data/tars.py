"""An index of the members of tar files: their positions, and the texts of labels and captions."""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from scm_media import weights
from scm_media.class_names import name_bytes

TEXTS = ("cls", "json", "txt")
"""Suffixes of members whose text is kept in the index: labels and captions."""
LONGEST_TEXT = 1 << 16
BLOCK = 512
CUT_SHORT = "shard that is cut short"
INDEX = 2
"""The form of the indices that are kept: one of another form is not read."""


def read_index(path: Path, size: int, changed: int, keep: Path | None) -> tuple[str, list[Sequence[Any]]]:
    """Returns what ``walk`` does, from the index in the folder ``keep``, which is written where it is missing."""
    if keep is None:
        return _walk_once(path, size, changed)
    digest = hashlib.blake2b(name_bytes(f"{path.resolve()} {size} {changed} {INDEX}"), digest_size=8).hexdigest()
    file = keep / f"{path.name}-{digest}.json"
    if file.is_file():
        try:
            fault, members = json.loads(file.read_text(encoding="utf-8"))
            return fault, members
        except ValueError as error:
            raise ValueError(f"{file} is no index of {path} ({error}): delete it, and it is made anew") from error
    found = walk(path)
    weights.write_whole(file, json.dumps(found).encode())
    return found


@lru_cache(maxsize=4096)
def _walk_once(path: Path, size: int, changed: int) -> tuple[str, list[Sequence[Any]]]:
    """Returns what ``walk`` does; both splits share the result where no index is kept on disk."""
    return walk(path)


def walk(path: Path) -> tuple[str, list[Sequence[Any]]]:
    """Returns the fault of a tar ("" for none), and name, offset, length and text (or None) of its files.

    Only headers are read, and the texts of labels and captions. A tar that is cut short lists the members before the
    cut.
    """
    members: list[Sequence[Any]] = []
    size, end = path.stat().st_size, 0
    with path.open("rb") as file:
        try:
            with tarfile.open(fileobj=file, mode="r:") as tar:
                while (entry := tar.next()) is not None:
                    end = entry.offset_data + -(-entry.size // BLOCK) * BLOCK
                    if end > size:
                        return f"{CUT_SHORT}: {entry.name} does not fit into its {size} bytes", members
                    if entry.isreg():
                        members.append(_describe(entry, tar.extractfile))
        except tarfile.ReadError as error:
            if not end:
                return f"shard that is no plain tar: {error} (unpack a compressed one first)", members
            return f"{CUT_SHORT}: {error}", members
        # tarfile ends quietly where a header is missing or damaged; a whole tar ends with blocks of zeros.
        file.seek(end)
        mark = file.read(BLOCK)
    if len(mark) < BLOCK:
        return f"{CUT_SHORT}: it ends at byte {size} without the end mark of a tar", members
    if any(mark):
        return f"shard that is damaged: no header at byte {end}", members
    return "", members


def _describe(entry: tarfile.TarInfo, extract: Callable[[tarfile.TarInfo], Any]) -> Sequence[Any]:
    text = None
    if entry.name.rpartition(".")[2].lower() in TEXTS and entry.size <= LONGEST_TEXT:
        text = extract(entry).read().decode("utf-8", "surrogateescape")
    return [entry.name, entry.offset_data, entry.size, text]

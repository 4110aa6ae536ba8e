"""Keeps which files were found usable, so that the next command on the same data opens only those that have changed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from scm_media import weights
from scm_media.data.validation import Inspection
from scm_media.modality import Modality

SECONDS = 2.0
"""Looking at files that took less is not worth a file of results."""


@contextlib.contextmanager
def remember_files(config: Mapping[str, Any], modality: Modality) -> Iterator[None]:
    """Lets the datasets that are opened within know which files were usable when a command last opened these data.

    The results are kept in ``<cache>/scm-media/files``, where the cache is XDG_CACHE_HOME or ``~/.cache``, for each
    modality and data of a recipe. A file of another size or time of change is looked at anew, and so is one that could
    not be used. Nothing is kept where looking took less than two seconds, or where the folder cannot be written.
    """
    file = _file_for(config)
    known = _read(file)
    modality.inspections.update(known)
    begun = time.monotonic()
    yield
    usable = {key: found for key, found in modality.inspections.items() if not found.reason}
    if time.monotonic() - begun < SECONDS or usable == known:
        return
    with contextlib.suppress(OSError):  # a home that is full or read-only costs the user the time, and nothing else
        _write(file, usable)


def _file_for(config: Mapping[str, Any]) -> Path:
    """Returns the file of results for the modality and the data of a recipe in the current folder."""
    home = os.environ.get("XDG_CACHE_HOME") or Path(os.environ.get("HOME") or tempfile.gettempdir()) / ".cache"
    described = json.dumps([config["modality"], config["data"], os.getcwd()], sort_keys=True, default=str)
    return Path(home) / "scm-media" / "files" / f"{hashlib.sha256(described.encode()).hexdigest()[:32]}.json"


def _read(file: Path) -> dict[Any, Inspection]:
    """Returns the results of a file, none where there is no such file or it is damaged."""
    try:
        rows = json.loads(file.read_text(encoding="utf-8"))
        return {
            ((str(source), int(size), int(changed)), bool(verified)): Inspection(bucket=int(bucket))
            for source, size, changed, verified, bucket in rows
        }
    except (OSError, ValueError, TypeError):
        return {}


def _write(file: Path, usable: Mapping[Any, Inspection]) -> None:
    """Writes results as rows of source, size in bytes, time of change in ns, whether it was decoded, and bucket."""
    rows = [[*version, verified, found.bucket] for (version, verified), found in usable.items()]
    weights.write_whole(file, json.dumps(rows).encode())

"""Keeps which files were found usable, so that the next command on the same data opens only those that have changed."""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import json
import os
import time
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from scm_media import weights
from scm_media.data.validation import Inspection
from scm_media.modality import Modality

FORMAT = 1
SECONDS = 2.0
"""Looking at files that took less is not worth a new file of results."""
DAYS = 180
"""Days after which results that no command has asked for are removed."""
DECODERS = ("scm-media", "av", "pillow", "soundfile", "soxr")
"""Distributions whose other versions may find other files usable."""


class Results(dict[Any, Inspection]):
    """Holds the results of looking at files, by version of the file, and those that were asked for."""

    def __init__(self, known: Mapping[Any, Inspection]) -> None:
        super().__init__(known)
        self.used: dict[Any, Inspection] = {}

    def __getitem__(self, key: Any) -> Inspection:
        found = self.used[key] = super().__getitem__(key)
        return found


@contextlib.contextmanager
def remember_files(config: Mapping[str, Any], modality: Modality, look_anew: bool = False) -> Iterator[None]:
    """Lets the datasets that are opened within know which files were usable when a command last opened these data.

    The results are kept in ``<cache>/scm-media/files``, which the user alone can read; the cache is XDG_CACHE_HOME or
    ``~/.cache``. There is a file for each modality and data of a recipe, current folder and versions of what decodes. A
    file of another size or time of change is looked at anew, and so is one that could not be used. look_anew: all are,
    and the results take the place of those before. Nothing new is kept where looking took less than two seconds.
    """
    file = _file_for(config, modality)
    known = {} if look_anew or file is None else _read(file, len(modality.buckets or (0,)))
    results = modality.__dict__["inspections"] = Results({} if look_anew else modality.inspections | known)
    begun, opened = time.monotonic(), False
    try:
        yield
        opened = True
    finally:
        usable = {key: found for key, found in results.used.items() if not found.reason}
        if not opened:  # what was not reached is kept
            usable = known | usable
        is_late = time.monotonic() - begun >= SECONDS
        if file is not None and usable != known and (is_late or file.exists()) and _is_first_here():
            with contextlib.suppress(OSError):  # a full or read-only home costs the user time, and nothing else
                _write(file, usable)


def _file_for(config: Mapping[str, Any], modality: Modality) -> Path | None:
    """Returns the file of results for the modality and the data of a recipe; None where they cannot be kept."""
    home = os.environ.get("HOME")
    cache = os.environ.get("XDG_CACHE_HOME") or (Path(home) / ".cache" if home else None)
    if cache is None:  # a folder that all users share is no place for results that are believed
        return None
    versions = {}
    for name in DECODERS:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    try:
        sources = [Path(inspect.getfile(each)).read_bytes() for each in type(modality).__mro__[:-1]]
        given = [FORMAT, versions, config["modality"], config["data"], os.getcwd()]
        described = json.dumps(given, default=str).encode()
    except (OSError, TypeError, ValueError, RecursionError):
        return None
    digest = hashlib.sha256(described)
    for source in sources:
        digest.update(hashlib.sha256(source).digest())
    return Path(cache) / "scm-media" / "files" / f"{digest.hexdigest()[:32]}.json"


def _read(file: Path, num_buckets: int) -> dict[Any, Inspection]:
    """Returns the results of a file, none where there is no such file or it is damaged."""
    try:
        rows = json.loads(file.read_text(encoding="utf-8"))
        os.utime(file)  # it was asked for
        known = {
            ((str(source), int(size), int(changed)), bool(verified)): Inspection(bucket=int(bucket))
            for source, size, changed, verified, bucket in rows
        }
    except (OSError, ValueError, TypeError, OverflowError, RecursionError):
        return {}
    return known if all(0 <= each.bucket < num_buckets for each in known.values()) else {}


def _write(file: Path, usable: Mapping[Any, Inspection]) -> None:
    """Writes results as rows of source, size in bytes, time of change in ns, whether it was decoded, and bucket."""
    file.parent.parent.mkdir(parents=True, exist_ok=True)
    file.parent.mkdir(mode=0o700, exist_ok=True)
    rows = [[*version, verified, found.bucket] for (version, verified), found in usable.items()]
    weights.write_whole(file, json.dumps(rows).encode())
    file.chmod(0o600)
    oldest = time.time() - DAYS * 24 * 3600
    for other in file.parent.glob("*.json"):
        if other.stat().st_mtime < oldest:
            other.unlink(missing_ok=True)


def _is_first_here() -> bool:
    """Returns whether this process is the first one on its machine of those that share a job."""
    return os.environ.get("LOCAL_RANK", "0") == "0"

"""Captions in files beside those that they describe: ``bell.txt`` or ``bell.json`` beside ``bell.wav``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Set
from pathlib import Path
from typing import Any

from scm_media.class_names import utf8_text
from scm_media.data.entries import Rejects

SUFFIXES = (".txt", ".json")
KEYS = ("caption", "captions", "prompt", "text")
"""Keys of a .json that hold captions, the first that is there."""
UNREADABLE = "unreadable captions"
LONGEST = 1 << 16
"""Bytes of a sidecar file; a longer one is no caption."""


def captions_from(value: Any) -> tuple[str, ...]:
    """Returns the captions that a manifest's column or a .json holds: a text, a list of texts, or none."""
    listed = value if isinstance(value, list | tuple) else [value]
    texts = [utf8_text(str(each)).strip() for each in listed if isinstance(each, str | int | float)]
    return tuple(dict.fromkeys(text for text in texts if text))


def split_sidecars(paths: Iterable[Path], suffixes: Set[str]) -> tuple[list[Path], Mapping[str, list[Path]]]:
    """Returns the paths without the files of captions among them, and these by the path without its suffix.

    A .txt or .json is a file of captions where a file with one of the suffixes, or a folder, is called the same.
    """
    listed = list(paths)
    stems = {stem(path, suffixes) for path in listed if path.suffix.lower() not in SUFFIXES}
    sidecars: dict[str, list[Path]] = {}
    others = []
    for path in listed:
        if path.suffix.lower() in SUFFIXES and (described := str(path.with_suffix(""))) in stems:
            sidecars.setdefault(described, []).append(path)
        else:
            others.append(path)
    return others, sidecars


def read_sidecars(sidecars: Iterable[Path], rejects: Rejects) -> tuple[str, ...]:
    """Returns the captions in files beside a sample: each line of a .txt, and those of a .json.

    A file of captions that cannot be read is counted, and the sample has no caption from it.
    """
    found: list[str] = []
    for sidecar in sorted(sidecars):
        try:
            found += _read(sidecar)
        except (OSError, ValueError, RecursionError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            rejects.add(sidecar, UNREADABLE, reason or type(error).__name__)
    return tuple(dict.fromkeys(found))


def stem(path: Path, suffixes: Set[str]) -> str:
    """Returns a path without its suffix, if that is one of a file's; a folder keeps its name."""
    return str(path.with_suffix("") if path.suffix.lower() in suffixes else path)


def _read(sidecar: Path) -> list[str]:
    with sidecar.open("rb") as file:
        content = file.read(LONGEST + 1)
    if len(content) > LONGEST:
        raise ValueError(f"longer than {LONGEST} bytes")
    text = content.decode("utf-8-sig")
    if sidecar.suffix.lower() == ".txt":
        return [caption for line in text.splitlines() for caption in captions_from(line)]
    value = json.loads(text)
    if isinstance(value, Mapping):
        value = next((value[key] for key in KEYS if key in value), None)
    captions = list(captions_from(value))
    if not captions:
        raise ValueError(f"no caption; expected a text, a list, or an object with {' or '.join(KEYS)}")
    return captions

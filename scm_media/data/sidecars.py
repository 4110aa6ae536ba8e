"""Captions in files beside those that they describe: ``bell.txt`` or ``bell.json`` beside ``bell.wav``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from scm_media.class_names import utf8_text
from scm_media.data.entries import Rejects

SUFFIXES = (".txt", ".json")
KEYS = ("caption", "captions", "prompt", "text")
"""Keys of a .json that hold captions, the first that is there."""
LONGEST = 1 << 16
"""Bytes of a sidecar file; a longer one is no caption."""


def captions_from(value: Any) -> tuple[str, ...]:
    """Returns the captions that a manifest's column or a .json holds: a text, a list of texts, or none."""
    listed = value if isinstance(value, list | tuple) else [value]
    texts = [utf8_text(str(each)).strip() for each in listed if isinstance(each, str | int | float)]
    return tuple(dict.fromkeys(text for text in texts if text))


def split_sidecars(paths: Iterable[Path]) -> tuple[list[Path], Mapping[Path, list[Path]]]:
    """Returns the paths without the files of captions among them, and these by the path without its suffix.

    A .txt or .json is a file of captions where another path is called the same but for its suffix.
    """
    listed = list(paths)
    stems = {_stem(path) for path in listed if path.suffix.lower() not in SUFFIXES}
    sidecars: dict[Path, list[Path]] = {}
    others = []
    for path in listed:
        if path.suffix.lower() in SUFFIXES and _stem(path) in stems:
            sidecars.setdefault(_stem(path), []).append(path)
        else:
            others.append(path)
    return others, sidecars


def read_sidecars(path: Path, sidecars: Mapping[Path, list[Path]], rejects: Rejects) -> tuple[str, ...]:
    """Returns the captions beside a file: each line of a .txt, and those of a .json; empty where there are none.

    A file of captions that cannot be read is counted, and the file that it describes has no caption from it.
    """
    found: list[str] = []
    for sidecar in sorted(sidecars.get(_stem(path), [])):
        try:
            found += _read(sidecar)
        except (OSError, ValueError, RecursionError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            rejects.add(sidecar, "unreadable captions", reason or type(error).__name__)
    return tuple(dict.fromkeys(found))


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


def _stem(path: Path) -> Path:
    """Returns a path without its suffix; a folder that is one sample keeps its name."""
    return path if path.is_dir() else path.with_suffix("")

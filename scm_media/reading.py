"""Reads text, JSON and YAML that may come from a stranger, from regular files of a bounded size alone."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

MAX_BYTES = 1 << 24
"""The largest size of a text file; a model's description with a hundred thousand classes has a few megabytes."""

MAX_BYTES_OF_YAML = 1 << 17
"""The largest size of a YAML file; a recipe has a few kilobytes, and the parser takes seconds for a hundred."""

MAX_NODES = 100_000
"""The largest number of values that a YAML file may stand for."""

MAX_BITS = 1 << 12
"""The largest size of a whole number in YAML; Python refuses to print more than 4,300 digits."""

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""The loader: libyaml's, if it is installed, refuses deep nests at once."""


def read_bytes(path: str | Path, most: int = MAX_BYTES) -> bytes:
    """Returns a regular file's content.

    Raises FileNotFoundError where there is none, and ValueError for a pipe, a device or a folder, which may never end,
    and for a file of more than ``most`` bytes.
    """
    path = Path(path)
    # Opened before it is looked at, so that it cannot be exchanged in between; a pipe without a writer does not block.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError(f"{path} is no regular file; copy the folder again")
        if status.st_size > most:
            raise ValueError(f"{path} has {status.st_size} bytes, expected at most {most}; it is no file of this kind")
        return file.read(most)


def read_text(path: str | Path, most: int = MAX_BYTES) -> str:
    """Returns a regular file's text in UTF-8; raises as ``read_bytes``, and ValueError for bytes that are no UTF-8."""
    try:
        return read_bytes(path, most).decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not text in UTF-8 (byte {error.start}): save it as UTF-8") from error


def read_json(path: str | Path, most: int = MAX_BYTES) -> Any:
    """Returns the value of a JSON file; raises as ``read_text``, and ValueError for invalid JSON."""
    return parse_json(read_text(path, most), str(path))


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Returns the mapping of a YAML file, as plain values; raises as ``read_text`` and ``parse_yaml``."""
    found = parse_yaml(read_text(path, MAX_BYTES_OF_YAML), str(path))
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds no mapping of keys")
    return found


def parse_yaml(text: str, source: str) -> Any:
    """Returns the value of a text in YAML, as plain values.

    Raises ValueError, naming the source, for any other text, and for aliases that stand for more than ``MAX_NODES``
    values: a few lines may stand for thousands of millions.
    """
    try:
        found = _load(text)
        num = _count_nodes(found, {})
    except Exception as error:  # tags such as !!int and !!timestamp raise anything at all for other texts
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{source} is not readable as YAML: {reason}") from error
    if num > MAX_NODES:
        raise ValueError(f"{source} stands for {num} values by its aliases, expected at most {MAX_NODES}")
    return found


def _load(text: str) -> Any:
    try:
        return yaml.load(text, Loader=_LOADER)
    except yaml.YAMLError as error:
        # libyaml refuses the escapes of lone surrogates, which stand for bytes of file names that are not UTF-8.
        if "Unicode character escape" not in str(error):
            raise
        return yaml.load(text, Loader=yaml.SafeLoader)


def _count_nodes(value: Any, counts: dict[int, int]) -> int:
    """Returns the number of values in a value with every alias written out; counts: the numbers so far, by id."""
    if not isinstance(value, dict | list | tuple | set):  # !!pairs and !!omap are lists of tuples
        if isinstance(value, int) and value.bit_length() > MAX_BITS:
            raise ValueError(f"a whole number of {value.bit_length()} bits, expected at most {MAX_BITS}")
        return 1
    if id(value) not in counts:
        counts[id(value)] = 0  # an alias to what it stands in is not followed again
        parts = [*value.keys(), *value.values()] if isinstance(value, dict) else value
        counts[id(value)] = 1 + sum(_count_nodes(each, counts) for each in parts)
    return counts[id(value)]


def parse_json(text: str, source: str) -> Any:
    """Returns the value of a text in JSON; raises ValueError, naming the source, for invalid JSON."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError(f"{source} is no valid JSON for this program: its brackets are nested too deep") from error
    except ValueError as error:
        raise ValueError(f"{source} is no valid JSON ({error})") from error


def find_metadata(texts: Iterable[str], key: str) -> dict[str, Any]:
    """Returns the object under ``key`` of the first text that is a JSON object with one, such as a file's comments.

    Returns an empty dictionary if no text has one.
    """
    for text in texts:
        try:
            found = json.loads(text)
        except ValueError:
            continue
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            return found[key]
    return {}

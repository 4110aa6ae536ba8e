"""One file of a dataset and what is said of it, and what was left out and why."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from scm_media.interfaces import Modality, Part


@dataclass(frozen=True, slots=True)
class Entry:
    """One file and what is said of it: class names (str) and scalars (float) by label.

    group: what has the same is held out together or not at all; None stands alone. part: the seconds of the file, from
    and to (None: its end), that the entry is; None for all of it. A path may be a folder that is one sample.
    """

    path: Path
    name: str
    labels: Mapping[str, str | float] = field(default_factory=dict)
    caption: str | None = None
    group: str | None = None
    part: tuple[float, float | None] | None = None

    def read(self, modality: Modality) -> Tensor:
        """The sample ``(C, *S)``; ValueError or OSError where it cannot be read."""
        return modality.read(self.path)

    def read_conformed(self, modality: Any, generator: torch.Generator | None) -> tuple[Tensor, Tensor | None]:
        """The sample brought to the modality's shape, and its mask ``(1, *S)`` where it tells what is padding.

        A modality that offers ``read_conformed`` reads no more than it needs. Raises as ``read``.
        """
        if hasattr(modality, "read_conformed"):
            return modality.read_conformed(self.file(), generator)
        return modality.conform(self.read(modality), generator), None

    def probe(self, modality: Any) -> None:
        """Raises ValueError or OSError where the file cannot be used; a modality may know without reading all of it."""
        if hasattr(modality, "probe"):
            modality.probe(self.file())
        else:
            self.read(modality)

    def bucket(self, modality: Any) -> int:
        """Which of the modality's buckets the sample is for; ValueError where it cannot be read."""
        return modality.bucket(self.file())

    def measure(self, modality: Any) -> Mapping[str, float]:
        """What the modality measures of the file, by name; ValueError where it cannot be read."""
        return modality.measure(self.file())

    def file(self) -> Path | Part | IO[bytes]:
        """What a modality reads: the file, a part of it, or the content of one that lies inside another."""
        return self.path if self.part is None else Part(self.path, *self.part)

    @property
    def source(self) -> str:
        """The file, in words for the user."""
        return str(self.file())

    @property
    def size(self) -> int:
        """Bytes, of a folder those of its files."""
        if self.path.is_dir():
            return sum(path.stat().st_size for path in self.path.iterdir() if path.is_file())
        return self.path.stat().st_size

    @property
    def version(self) -> tuple[str, int, int]:
        """What changes when the content does: path (and part), size, time of change."""
        return self.source, self.size, self.path.stat().st_mtime_ns


class Rejects:
    """What was left out: counted by reason, listed by source."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.listed: list[tuple[str, str]] = []

    def add(self, source: object, reason: str, detail: str = "") -> None:
        """One more source left out; ``detail`` is listed and not counted by."""
        self.counts[reason] += 1
        self.listed.append((str(source), f"{reason}: {detail}" if detail else reason))

    def refuse(self, source: object, remedy: str) -> ValueError:
        """The error for a source of which nothing is left."""
        reasons = ", ".join(f"{count} {reason}" for reason, count in self.counts.most_common()) or "it is empty"
        first = f" (first: {self.listed[0][0]})" if self.listed else ""
        return ValueError(f"nothing in {source} can be used: {reasons}{first}; {remedy}")


class Unusable(Exception):
    """Why an example is left out."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


def read_label(value: Any, name: str, scalar: bool, classes: Sequence[str] | None) -> str | float:
    """The class name, or the scalar, that an example was given; Unusable where it is missing, unknown or no number."""
    if value is None or value == "" or isinstance(value, (list, dict)):
        raise Unusable("missing label", name)
    if scalar:
        try:
            number = float(value)
        except (ValueError, OverflowError):
            number = math.nan
        if not math.isfinite(number):
            raise Unusable("scalar label that is no number", f"{name}={value}")
        return number
    if classes is not None and str(value) not in classes:
        raise Unusable("unknown label", f"{name}={value}")
    return str(value)

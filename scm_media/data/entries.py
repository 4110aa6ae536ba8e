"""Describes a file of a dataset with its labels, and records the files that are left out."""

from __future__ import annotations

import math
import stat
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scm_media.class_names import class_name, find_class
from scm_media.display import printable
from scm_media.modality import MediaFile, Modality, Segment


@contextmanager
def name_errors(source: str) -> Iterator[None]:
    """Turns any exception of a decoder or a modality into a ValueError that names the file.

    It keeps the ``reason``, by which rejects are counted, and does not catch KeyboardInterrupt and SystemExit.
    """
    try:
        yield
    except Exception as error:
        text = printable(" ".join(str(error).split()))
        if isinstance(error, OSError) and error.strerror:
            text = error.strerror
        is_for_users = isinstance(error, ValueError | OSError) and bool(text)
        names_file = is_for_users and printable(Path(source).name) in text
        if isinstance(error, ValueError) and names_file and text == str(error):
            raise
        kind = "" if is_for_users else f"cannot be decoded: {type(error).__name__}: "
        renamed = ValueError(text if names_file else f"{printable(source)}: {kind}{text}".removesuffix(": "))
        if (reason := getattr(error, "reason", None)) is not None and isinstance(reason, str):
            renamed.reason = reason  # type: ignore[attr-defined]
        raise renamed from error


@dataclass(frozen=True, slots=True)
class Entry:
    """A file with its labels: a class name (str) or a number (float) for each.

    path: of a file, or of a folder that is one sample. name: identifies the entry within its dataset. group: entries
    with the same group are held out together. captions: texts that describe it. fields: further values, which templates
    of texts may name. cut: start and stop in seconds of the part that is used; without a stop it reaches to the end.
    caption: the caption as a manifest or a shard has it, by which digests of the data notice a change. Methods that
    read the file raise ValueError with its name, whatever the decoder raised.
    """

    path: Path
    name: str
    labels: Mapping[str, str | float] = field(default_factory=dict)
    captions: tuple[str, ...] = ()
    fields: Mapping[str, str] = field(default_factory=dict)
    group: str | None = None
    cut: tuple[float, float | None] | None = None
    caption: str | None = None

    @contextmanager
    def _open(self) -> Iterator[MediaFile]:
        """Yields the file and names it in errors; raises ValueError for a pipe or a device, which may never end."""
        with name_errors(self.source):
            try:
                mode = self.path.stat().st_mode
            except OSError:  # the modality's own message is clearer
                mode = stat.S_IFREG
            if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
                raise ValueError("is a pipe, a device or a socket, expected a regular file or a folder")
            yield self.file()

    def read_transformed(self, modality: Modality, generator: torch.Generator | None) -> tuple[Tensor, Tensor | None]:
        """Returns the sample in the modality's shape, and its padding mask ``(1, *S)`` or None."""
        with self._open() as file:
            return modality.read_transformed(file, generator)

    def validate(self, modality: Modality) -> None:
        """Raises ValueError if the modality cannot use the file."""
        with self._open() as file:
            modality.validate(file)

    def bucket(self, modality: Modality) -> int:
        """Returns the index of the modality's bucket that the sample falls into."""
        with self._open() as file:
            return modality.bucket(file)

    def measure(self, modality: Modality) -> Mapping[str, float]:
        """Returns the modality's measurements of the file, by name."""
        with self._open() as file:
            return modality.measure(file)

    def file(self) -> MediaFile:
        """Returns what a modality reads: the path, or the segment that ``cut`` describes."""
        return self.path if self.cut is None else Segment(self.path, *self.cut)

    @property
    def source(self) -> str:
        """The name of the file in messages."""
        return str(self.file())

    @property
    def size(self) -> int:
        """The number of bytes of the file, or of all files of the folder."""
        if self.path.is_dir():
            return sum(path.stat().st_size for path in self.path.iterdir() if path.is_file())
        return self.path.stat().st_size

    @property
    def version(self) -> tuple[str, int, int]:
        """The path with the cut, size and time of change, which differ once the file was changed."""
        place = str(self.path) if self.cut is None else f"{self.path} {self.cut}"
        return place, self.size, self.path.stat().st_mtime_ns


class Rejects:
    """Records the sources that are left out: their number for each reason, and a list of them."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.listed: list[tuple[str, str]] = []

    def add(self, source: object, reason: str, detail: str = "") -> None:
        """Records one source; ``detail`` appears in the list only."""
        self.counts[reason] += 1
        self.listed.append((str(source), f"{reason}: {detail}" if detail else reason))

    def make_error(self, source: object, remedy: str) -> ValueError:
        """Returns the error for data of which nothing can be used; its attribute ``rejected`` lists the sources."""
        reasons = ", ".join(f"{count} {reason}" for reason, count in self.counts.most_common()) or "it is empty"
        first = f" (first: {printable(self.listed[0][0])})" if self.listed else ""
        error = ValueError(f"nothing in {printable(str(source))} can be used: {reasons}{first}; {remedy}")
        error.rejected = self.listed  # type: ignore[attr-defined]
        return error


class Unusable(Exception):
    """Says why an example has to be left out."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


def read_label(value: Any, name: str, scalar: bool, classes: Sequence[str] | None) -> str | float:
    """Returns an example's label: a class name, or a finite number for a scalar label.

    Raises Unusable if the value is missing, not among the classes, or not a finite number.
    """
    value = value.item() if hasattr(value, "item") else value  # NumPy's and PyTorch's numbers
    if value is None or value == "" or isinstance(value, (list, dict)):
        raise Unusable("missing label", name)
    if scalar:
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if not abs(number) <= torch.finfo(torch.float32).max:  # larger numbers are infinite in float32
            raise Unusable("scalar label that is no number", f"{name}={value}")
        return number
    if isinstance(value, float) and not math.isfinite(value):
        raise Unusable("label that is not finite", f"{name}={value}")
    if classes is None:
        return class_name(value)
    found = find_class(value, classes)
    if found is None:
        raise Unusable("unknown label", f"{name}={value}")
    return found

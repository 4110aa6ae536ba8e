"""One file of a dataset with its labels, and the record of the files that were left out."""

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
    """Turns whatever a decoder or a modality raises into a ValueError that names the file.

    The error keeps its ``reason``, by which rejects are counted. KeyboardInterrupt and SystemExit pass.
    """
    try:
        yield
    except Exception as error:
        text = printable(" ".join(str(error).split()))
        if isinstance(error, OSError) and error.strerror:
            text = error.strerror
        own = isinstance(error, ValueError | OSError) and bool(text)
        is_named = own and printable(Path(source).name) in text
        if isinstance(error, ValueError) and is_named and text == str(error):
            raise
        kind = "" if own else f"cannot be decoded: {type(error).__name__}: "
        named = ValueError(text if is_named else f"{printable(source)}: {kind}{text}".removesuffix(": "))
        if (reason := getattr(error, "reason", None)) is not None and isinstance(reason, str):
            named.reason = reason  # type: ignore[attr-defined]
        raise named from error


@dataclass(frozen=True, slots=True)
class Entry:
    """One file with its labels: class names (str) and scalars (float) by label.

    path: may be a folder that is one sample. group: entries of one group are held out together; None stands alone.
    cut: from and to which second of the file the entry reaches (None: its end); None for all of it.

    Methods that read the file raise ValueError, with its name, whatever the modality's decoder raised.
    """

    path: Path
    name: str
    labels: Mapping[str, str | float] = field(default_factory=dict)
    caption: str | None = None
    group: str | None = None
    cut: tuple[float, float | None] | None = None

    @contextmanager
    def _opened(self) -> Iterator[None]:
        """Names the file in errors; raises ValueError for a pipe or a device, which may never end."""
        with name_errors(self.source):
            try:
                mode = self.path.stat().st_mode
            except OSError:  # the modality words it better
                mode = stat.S_IFREG
            if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
                raise ValueError("is neither a regular file nor a folder")
            yield

    def read_transformed(self, modality: Modality, generator: torch.Generator | None) -> tuple[Tensor, Tensor | None]:
        """Returns the sample in the modality's shape, and its padding mask ``(1, *S)`` or None."""
        with self._opened():
            return modality.read_transformed(self.file(), generator)

    def validate(self, modality: Modality) -> None:
        """Raises ValueError where the modality cannot use the file."""
        with self._opened():
            modality.validate(self.file())

    def bucket(self, modality: Modality) -> int:
        """Returns the index of the modality's bucket that the sample is for."""
        with self._opened():
            return modality.bucket(self.file())

    def measure(self, modality: Modality) -> Mapping[str, float]:
        """Returns what the modality measures of the file, by name."""
        with self._opened():
            return modality.measure(self.file())

    def file(self) -> MediaFile:
        """Returns what a modality reads: a path, a segment of a file, or the content of a member of a tar."""
        return self.path if self.cut is None else Segment(self.path, *self.cut)

    @property
    def source(self) -> str:
        """Names the file for the user."""
        return str(self.file())

    @property
    def size(self) -> int:
        """The number of bytes; of a folder, of all its files."""
        if self.path.is_dir():
            return sum(path.stat().st_size for path in self.path.iterdir() if path.is_file())
        return self.path.stat().st_size

    @property
    def version(self) -> tuple[str, int, int]:
        """Path (and cut), size and time of change, by which a changed file is noticed."""
        return self.source, self.size, self.path.stat().st_mtime_ns


class Rejects:
    """A record of the sources that were left out: counted by reason, and listed one by one."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.listed: list[tuple[str, str]] = []

    def add(self, source: object, reason: str, detail: str = "") -> None:
        """Records one source; ``detail`` is listed with it and plays no part in the counts."""
        self.counts[reason] += 1
        self.listed.append((str(source), f"{reason}: {detail}" if detail else reason))

    def refuse(self, source: object, remedy: str) -> ValueError:
        """Returns the error for data of which nothing is left; its ``rejected`` lists what was left out."""
        reasons = ", ".join(f"{count} {reason}" for reason, count in self.counts.most_common()) or "it is empty"
        first = f" (first: {printable(self.listed[0][0])})" if self.listed else ""
        error = ValueError(f"nothing in {printable(str(source))} can be used: {reasons}{first}; {remedy}")
        error.rejected = self.listed  # type: ignore[attr-defined]
        return error


class Unusable(Exception):
    """Raised with the reason where an example has to be left out."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


def read_label(value: Any, name: str, scalar: bool, classes: Sequence[str] | None) -> str | float:
    """Returns an example's label: a class name, or a finite number for a scalar label.

    Raises Unusable where it is missing, not among the classes, or no finite number.
    """
    value = value.item() if hasattr(value, "item") else value  # NumPy's and PyTorch's numbers
    if value is None or value == "" or isinstance(value, (list, dict)):
        raise Unusable("missing label", name)
    if scalar:
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if not abs(number) <= torch.finfo(torch.float32).max:  # beyond it a network is given infinity
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

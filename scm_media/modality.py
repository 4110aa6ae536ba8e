"""The base class of modalities: how samples of one kind are read, brought to a shape, written and shown."""

from __future__ import annotations

import tempfile
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import repeat
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class SizeOption:
    """A size of a sample that a user may set: its unit and default; the CLI's flags come from here.

    axis: the axis of samples ``(C, *S)`` that it measures, counted from the end (-1: the last); samples can be
    continued and filled along it. rate: positions of the sample along the axis in one unit (22,050 a second).
    longest: the largest size that is drawn at once, in the same unit; longer samples are drawn in windows that overlap.
    None: no limit.
    """

    default: float
    unit: str
    help: str
    longest: float | None = None
    axis: int | None = None
    rate: float = 1.0

    def __post_init__(self) -> None:
        if self.axis is None and self.longest is not None:
            raise ValueError(f"a size option with longest={self.longest} needs the axis along which it is continued")
        if self.axis is not None and self.axis >= 0:
            raise ValueError(f"the axis of a size option is counted from the end (-1: the last), got {self.axis}")


@dataclass(frozen=True)
class Segment:
    """A stretch of a file that is one sample of its own, from ``start`` to ``stop`` seconds (None: the file's end)."""

    path: Path
    start: float
    stop: float | None = None

    def __str__(self) -> str:
        return f"{self.path} ({self.start:g} to {'its end' if self.stop is None else f'{self.stop:g} s'})"


MediaFile = Path | Segment | IO[bytes]
"""A file as datasets hand it over: a path, a segment of one (``takes_segments``), or opened bytes with a ``name``."""


class Modality(ABC):
    """Reads samples of one kind, brings them to a recipe's shape, writes and shows them.

    A subclass sets ``name``, ``suffixes`` and, where users may set sizes, ``size_options``, and implements ``shape``,
    ``read``, ``transform``, ``write`` and ``preview``. Every other attribute and method is optional: the defaults here
    serve a modality whose files are small and hold one sample each. A ValueError about a file names the file, and may
    have an attribute ``reason``, a few words by which rejected files are counted.
    """

    name: str
    suffixes: frozenset[str]
    """The suffixes of files that ``read`` takes, in lower case with the dot."""
    size_options: Mapping[str, SizeOption] = {}
    pipeline_tag: str | None = None
    """The name of the models' task on the Hugging Face hub."""
    feature_networks: Mapping[str, Mapping[str, Any]] = {}
    """Name to the configuration of a ``FeatureExtractor`` trained elsewhere, for ``evaluate --features``."""
    augments: bool = False
    """True where ``transform`` is random, given a generator."""
    further_augmentations: Sequence[str] = ()
    """Settings, as ``key=value``, by which ``transform`` would vary samples more; a warning of few data names them."""
    takes_segments: bool = False
    """True where ``read_transformed``, ``validate`` and ``measure`` take a ``Segment``, so manifests may cut files."""
    statistic_units: Mapping[str, str] = {}
    """The name of each figure that ``statistics`` gives of single samples, to its unit in words ("pixels a frame")."""
    buckets: Sequence[tuple[int, int]] | None = None
    """Height and width of each shape that samples come in; None for the one of ``shape``."""

    @property
    def written_suffixes(self) -> Sequence[str]:
        """Suffixes that ``write`` takes, the preferred one first; by default all of ``suffixes``, sorted."""
        return sorted(self.suffixes)

    @abstractmethod
    def shape(self, **sizes: float) -> tuple[int, ...]:
        """Returns ``(C, *S)`` of a sample with these sizes, with the default of each one that is not given."""

    @abstractmethod
    def read(self, path: Path) -> Tensor:
        """Returns the file's sample ``(C, *S)``, float32 in [-1, 1], as large as it is in the file."""

    @abstractmethod
    def transform(self, sample: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Returns the sample cut, padded, flipped to ``shape()`` as the recipe says; random only through generator."""

    @abstractmethod
    def write(self, path: Path, sample: Tensor, metadata: Mapping[str, Any]) -> str | None:
        """Writes one sample ``(C, *S)`` with the metadata inside the file; returns what had to be changed, in words."""

    def read_metadata(self, path: Path) -> dict[str, Any]:
        """Returns the metadata that ``write`` put into a file, empty where there is none.

        Raises ValueError for a file that is damaged or of another kind.
        """
        return {}

    @abstractmethod
    def preview(self, samples: Tensor, captions: Sequence[str] = (), columns: int | None = None) -> Any:
        """Returns one picture (PIL) of samples ``(B, C, *S)``, row by row; columns: pictures a row (None: any)."""

    def decode(self, content: bytes, source: str) -> Tensor:
        """Returns what ``read`` does of a file's content; ``source`` names the file, with its suffix.

        By default the content is written into a temporary file.
        """
        with tempfile.NamedTemporaryFile(suffix=Path(source).suffix) as aside:
            aside.write(content)
            aside.flush()
            return self.read(Path(aside.name))

    def read_transformed(
        self, file: MediaFile, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Returns what ``transform`` makes of a file, and its padding mask ``(1, *S)``.

        The mask is one where the sample is not padding; None, for every file, where all of it is to be learned.
        Override it to read no more of a file than the sample needs.
        """
        return self.transform(self._read_file(file), generator), None

    def validate(self, file: MediaFile) -> None:
        """Raises ValueError for a file that cannot be used. Override it where that is known without decoding all."""
        self._read_file(file)

    def _read_file(self, file: MediaFile) -> Tensor:
        assert not isinstance(file, Segment), "a modality that takes segments overrides what reads them"
        return self.read(file) if isinstance(file, Path) else self.decode(file.read(), file.name)

    def measure(self, file: MediaFile) -> Mapping[str, float]:
        """Returns numbers that are measured of a file, by the name that ``data.measures`` calls them; none here."""
        return {}

    def bucket(self, file: MediaFile) -> int:
        """Returns the index among ``buckets`` of the shape that a file's sample is brought to."""
        return 0

    def is_sample_dir(self, folder: Path) -> bool:
        """Returns whether a folder is one sample, whose path ``read`` and the others take."""
        return False

    def check_actions(self) -> None:
        """Raises ValueError, naming the keys, if actions could be paired with other frames than those they belong to.

        A modality whose samples begin where their files do, and are not mirrored, overrides this with a method that
        returns.
        """
        raise ValueError(
            f"data.actions: {self.name} does not tell whether a sample begins where its file does, so actions could be "
            "paired with other frames; set data.actions=null"
        )

    def transform_batch(self, samples: Tensor, generators: Sequence[torch.Generator] | None = None) -> Tensor:
        """Returns ``transform`` of each of samples ``(B, C, *S)`` of one size; generators: one for each sample."""
        pairs = zip(samples, generators or repeat(None, len(samples)), strict=True)
        return torch.stack([self.transform(sample, generator) for sample, generator in pairs])

    def read_whole(self, path: Path) -> Tensor:
        """Returns the sample of a file to be edited: as ``transform`` makes it, but of the file's full length.

        The length is that along the axis of a size option; without such an option the sample is transformed.
        """
        sample = self.read(path)
        is_continued = any(option.axis is not None for option in self.size_options.values())
        return sample if is_continued else self.transform(sample)

    def count_values(self, path: Path) -> int | None:
        """Returns how many numbers ``read_whole`` holds at once for a file, by its header alone; None: it cannot tell.

        The app refuses files by it before they are decoded. Override it where a small file may hold a long sample.
        Raises ValueError as ``read``.
        """
        return None

    def blend(self, given: Tensor, made: Tensor, mask: Tensor) -> Tensor:
        """Returns samples ``(B, C, *S)``: the given ones where mask ``(B, 1, *S)`` is one, the made ones elsewhere.

        Override it where a jump at the border is heard or seen (a waveform clicks).
        """
        return torch.where(mask > 0, given, made)

    @classmethod
    def suggest_config(cls, paths: Sequence[str | Path]) -> tuple[dict[str, Any], str]:
        """Returns keys of a recipe's ``modality`` that fit these files, and what was seen in them, in words."""
        return {}, ""

    def data_warnings(self, samples: Sequence[Tensor]) -> list[str]:
        """Returns what a user who looks at their data should know of these samples ``(C, *S)``."""
        return []

    def statistics(self, samples: Tensor) -> Mapping[str, Tensor]:
        """Returns figures of single samples ``(B, C, *S)``, float32 in [-1, 1], which Fréchet distances do not show.

        Each name of ``statistic_units`` has one number for each sample, float32 ``(B,)``, NaN where a sample has none
        (the pitch of silence); ``evaluate --curve`` compares them with those of real data. There are none by default.
        """
        return {}

    @cached_property
    def inspections(self) -> dict[Any, Any]:
        """The results of ``data.validation``, so that both splits of a dataset look at a file once."""
        return {}

    def __getstate__(self) -> dict[str, Any]:
        # Worker processes look at no file: what is known of a million would only be copied to them.
        return {name: value for name, value in self.__dict__.items() if name != "inspections"}

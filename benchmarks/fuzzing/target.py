"""The base classes of the fuzzer's targets, which write valid files once and corrupt copies of them."""

from __future__ import annotations

import random
import shutil
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path

from benchmarks.fuzzing.corruption import corrupt_bytes


class Target(ABC):
    """A reader of files that a stranger may have made; each input lies in a folder of its own."""

    def __init__(self, base: Path, places: Mapping[str, str]) -> None:
        self.base, self.places = base, places
        self.prepared = base / type(self).__name__
        if not self.prepared.is_dir():
            aside = self.prepared.with_suffix(".part")
            aside.mkdir(parents=True, exist_ok=True)
            self.prepare(aside)
            aside.rename(self.prepared)

    @abstractmethod
    def prepare(self, folder: Path) -> None:
        """Writes valid files, once."""

    @abstractmethod
    def make(self, folder: Path, generator: random.Random) -> Path:
        """Writes one corrupted input into a folder that does not exist yet, and returns the path to read."""

    @abstractmethod
    def run(self, made: Path) -> None:
        """Reads an input."""

    def valid(self, folder: Path) -> Path:
        """Writes a valid input, so that imports at first use happen before the first corrupted input."""
        folder.mkdir(parents=True, exist_ok=True)
        file = sorted(self.prepared.iterdir())[0]
        return Path(shutil.copy(file, folder)) if file.is_file() else Path(shutil.copytree(file, folder / file.name))


class FileTarget(Target):
    """A target whose files have corrupted bytes, or another format's suffix."""

    def make(self, folder: Path, generator: random.Random) -> Path:
        files = sorted(self.prepared.iterdir())
        file = generator.choice(files)
        suffix = generator.choice(files).suffix if generator.random() < 0.05 else file.suffix
        folder.mkdir(parents=True)
        made = folder / f"input{suffix}"
        made.write_bytes(corrupt_bytes(file.read_bytes(), generator))
        return made

"""Describes the latents or the trajectories of a folder: their source and their files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import torch

from scm_media import weights

MANIFEST = "manifest.json"
DTYPES: Mapping[str, torch.dtype] = {"float16": torch.float16, "float32": torch.float32}
LATENTS, PADDING_MASK, ACTIONS, LABEL = "latents", "padding_mask", "actions", "label."
"""Names of the tensors of a shard; each label's begins with the last."""
GIVEN, MASK, GUIDANCE = "given", "mask", "guidance"
"""Names of what a shard of trajectories holds besides: given latents, where they are given, and guidance scales."""


@dataclass(frozen=True, kw_only=True)
class Sharded:
    """Describes numbered tensors and their layout in files of ``shard_size`` each.

    num: examples. shape: ``(c, *s)``. dtype: of the stored numbers.
    """

    num: int
    shape: list[int]
    dtype: str
    shard_size: int
    what: ClassVar[str]
    """The word for the tensors in errors."""
    remedy: ClassVar[str]
    """The remedy where the folder holds something else, after "delete FOLDER"."""

    @property
    def num_shards(self) -> int:
        """The number of files that the tensors are in."""
        return -(-self.num // self.shard_size)

    def shard(self, number: int) -> range:
        """Returns the numbers of a shard's examples."""
        return range(number * self.shard_size, min(self.num, (number + 1) * self.shard_size))

    def find_missing(self, folder: Path) -> list[int]:
        """Returns the numbers of the shards that the folder lacks."""
        return [number for number in range(self.num_shards) if not shard_file(folder, number).exists()]

    def save(self, folder: Path) -> None:
        """Writes the manifest into the folder."""
        weights.write_whole(folder / MANIFEST, (json.dumps(asdict(self), indent=2) + "\n").encode())

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Returns the manifest of a folder; ValueError where it cannot be read."""
        file = folder / MANIFEST
        try:
            return cls(**json.loads(file.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise ValueError(f"{file} is no manifest of {cls.what} ({error}): delete {folder} {cls.remedy}") from error

    def check(self, folder: Path, keys: Sequence[str] | None = None) -> None:
        """Raises ValueError, naming what differs, where the folder has another manifest (in ``keys``, default all)."""
        there, wanted = self.load(folder)._flat(keys), self._flat(keys)
        # A setting that has come since the manifest was written, and that the recipe leaves off.
        wanted = {key: value for key, value in wanted.items() if key in there or value}
        wrong = [
            f"{key} {there.get(key)}, the recipe's is {wanted.get(key)}"
            for key in {**there, **wanted}
            if there.get(key) != wanted.get(key)
        ]
        if wrong:
            raise ValueError(
                f"the {self.what} in {folder} were made with {'; with '.join(wrong)}: delete {self.top(folder)} "
                f"{self.remedy}, or use the networks, data and keys that they were made with"
            )

    def top(self, folder: Path) -> Path:
        """Returns the folder that has to be deleted where the tensors are to be made anew."""
        return folder

    def _flat(self, keys: Sequence[str] | None) -> dict[str, Any]:
        values = {key: value for key, value in asdict(self).items() if keys is None or key in keys}
        nested = {key: value for key, value in values.items() if isinstance(value, dict)}
        plain = {key: value for key, value in values.items() if key not in nested}
        return plain | {f"{name}.{key}": value for name, section in nested.items() for key, value in section.items()}


@dataclass(frozen=True, kw_only=True)
class Manifest(Sharded):
    """Describes the source of latents and their layout in files.

    autoencoder, dataset: digests of its weights and of the examples. modality: its configuration, since it brings
    samples to their shape. variants: latents of each example.
    """

    autoencoder: str
    dataset: str
    modality: dict[str, Any]
    variants: int
    what: ClassVar[str] = "latents"
    remedy: ClassVar[str] = "and run scm-media encode again"

    def top(self, folder: Path) -> Path:
        """Returns the folder of all splits."""
        return folder.parent


def shard_file(folder: Path, number: int) -> Path:
    """Returns the file of a shard."""
    return folder / f"{number:05d}.safetensors"

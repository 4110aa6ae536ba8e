"""Describes the latents of a folder: their source and their files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from scm_media import weights

MANIFEST = "manifest.json"
DTYPES: Mapping[str, torch.dtype] = {"float16": torch.float16, "float32": torch.float32}
LATENTS, PADDING_MASK, ACTIONS, LABEL = "latents", "padding_mask", "actions", "label."
"""Names of the tensors of a shard; each label's begins with the last."""


@dataclass(frozen=True)
class Manifest:
    """Describes the source of latents and their layout in files.

    autoencoder, dataset: digests of its weights and of the examples. modality: its configuration, since it brings
    samples to their shape. num: examples. variants: latents of each. shape: ``(c, *s)``.
    """

    autoencoder: str
    dataset: str
    modality: dict[str, Any]
    num: int
    variants: int
    shape: list[int]
    dtype: str
    shard_size: int

    @property
    def num_shards(self) -> int:
        """The number of files that the latents are in."""
        return -(-self.num // self.shard_size)

    def shard(self, number: int) -> range:
        """Returns the examples of a shard."""
        return range(number * self.shard_size, min(self.num, (number + 1) * self.shard_size))

    def find_missing(self, folder: Path) -> list[int]:
        """Returns the numbers of the shards that the folder lacks."""
        return [number for number in range(self.num_shards) if not shard_file(folder, number).exists()]

    def save(self, folder: Path) -> None:
        """Writes the manifest into the folder."""
        weights.write_whole(folder / MANIFEST, (json.dumps(asdict(self), indent=2) + "\n").encode())

    @classmethod
    def load(cls, folder: Path) -> Manifest:
        """Returns the manifest of a folder; ValueError where it cannot be read."""
        file = folder / MANIFEST
        try:
            return cls(**json.loads(file.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise ValueError(f"{file} is no manifest of latents ({error}): delete {folder} and encode again") from error

    def check(self, folder: Path, keys: Sequence[str] | None = None) -> None:
        """Raises ValueError, naming what differs, where the folder has another manifest (in ``keys``, default all)."""
        there, wanted = Manifest.load(folder)._flat(keys), self._flat(keys)
        wrong = [
            f"{key} {there.get(key)}, the recipe's is {wanted.get(key)}"
            for key in {**there, **wanted}
            if there.get(key) != wanted.get(key)
        ]
        if wrong:
            raise ValueError(
                f"the latents in {folder} were encoded with {'; with '.join(wrong)}: delete {folder.parent} and run "
                "scm-media encode again, or use the autoencoder, data and keys that they were made with"
            )

    def _flat(self, keys: Sequence[str] | None) -> dict[str, Any]:
        values = {key: value for key, value in asdict(self).items() if keys is None or key in keys}
        modality = values.pop("modality", {})
        return values | {f"modality.{key}": value for key, value in modality.items()}


def shard_file(folder: Path, number: int) -> Path:
    """Returns the file of a shard."""
    return folder / f"{number:05d}.safetensors"

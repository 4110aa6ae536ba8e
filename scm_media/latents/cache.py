"""Writing the latents of a run, and choosing them where they fit the run that trains."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scm_media import weights
from scm_media.data import Batch, Dataset, read_ranges
from scm_media.latents.dataset import LatentDataset
from scm_media.latents.manifest import (
    ACTIONS,
    DTYPES,
    GIVEN,
    LABEL,
    LATENTS,
    MANIFEST,
    MASK,
    PADDING_MASK,
    Manifest,
    shard_file,
)
from scm_media.processes import Share, wait_until

CONTENT_KEYS = ("autoencoder", "dataset", "modality", "num", "shape")
"""Keys of a manifest that must fit the run that reads the latents; how they are stored may differ."""


@dataclass(frozen=True)
class LatentCache:
    """The latents of all splits of a run.

    folder: has a folder for each split. splits: name to dataset. autoencoder: the file of its weights. modality: its
    configuration. shape: ``(c, *s)``. settings: the recipe's section ``latents``.
    """

    folder: Path
    splits: Mapping[str, Dataset]
    autoencoder: Path
    modality: dict[str, Any]
    shape: Sequence[int]
    settings: Mapping[str, Any]

    def open(self) -> Mapping[str, Dataset]:
        """Returns what stages train on by split: the cached latents where the run has them, else the data.

        Raises ValueError where the cache is incomplete, or was made with another autoencoder, modality or dataset.
        """
        found = {}
        for split, data in self.splits.items():
            folder = self.folder / split
            if not (folder / MANIFEST).exists():
                if self.folder.exists():
                    raise ValueError(
                        f"{folder} has no {MANIFEST}, so {self.folder} is not complete: run scm-media encode with the "
                        "same recipe, or delete it to train without"
                    )
                return self.splits
            self.manifest(data).check(folder, CONTENT_KEYS)
            found[split] = LatentDataset(folder, data)
        return found

    def manifest(self, data: Dataset) -> Manifest:
        """Returns the manifest that latents of these examples get in this run; ValueError where they have none."""
        if (fingerprint := data.fingerprint()) is None:
            raise ValueError(
                f"{type(data).__name__} does not tell which examples it holds, so that a cache of its latents could "
                "not be told from another's: give it a method fingerprint() -> str"
            )
        if data.buckets is not None:
            raise ValueError("latents are kept in one shape: set modality.buckets=null, or train without the cache")
        return Manifest(
            autoencoder=weights.digest(weights.read(self.autoencoder)),
            dataset=fingerprint,
            modality=self.modality,
            num=len(data),
            variants=self.settings["variants"],
            shape=list(self.shape),
            dtype=self.settings["dtype"],
            shard_size=self.settings["shard_size"],
        )

    def _agree(self, share: Share) -> None:
        """Writes the missing manifests in the first process, for which the others wait, and checks all of them.

        Raises ValueError where the folder holds latents that were made from something else.
        """
        for split, data in self.splits.items():
            manifest, folder = self.manifest(data), self.folder / split
            if share.rank == 0 and not (folder / MANIFEST).exists():
                manifest.save(folder)
            wait_until((folder / MANIFEST).exists)
            manifest.check(folder)

    def find_missing(self) -> list[tuple[str, int]]:
        """Returns the splits and numbers of the shards that the folder lacks."""
        return [
            (split, number)
            for split, data in self.splits.items()
            for number in self.manifest(data).find_missing(self.folder / split)
        ]

    def write(
        self,
        encode: Callable[[Tensor], Tensor],
        latent_mask: Callable[[Tensor], Tensor],
        seed: int,
        num_workers: int = 0,
        progress: Callable[[str, int, int], None] | None = None,
        share: Share | None = None,
    ) -> int:
        """Encodes the missing shards that this process takes, and returns the number of examples that were encoded.

        share: the process's share in the work of several, of which the first one writes the manifests.

        Raises ValueError where the folder holds latents that were made from something else.
        """
        share, num = share or Share(), 0
        self._agree(share)
        for split, data in self.splits.items():
            manifest, folder = self.manifest(data), self.folder / split

            def read(ranges: Sequence[range], data: Dataset = data) -> Iterator[list[Batch]]:
                return read_ranges(data, ranges, self.settings["variants"], seed, num_workers)

            size = self.settings["batch_size"]
            num += write_missing(folder, manifest, read, encode, latent_mask, size, progress, share)
        return num


def write_missing(
    folder: Path,
    manifest: Manifest,
    read: Callable[[Sequence[range]], Iterator[list[Batch]]],
    encode: Callable[[Tensor], Tensor],
    latent_mask: Callable[[Tensor], Tensor] | None,
    batch_size: int,
    progress: Callable[[str, int, int], None] | None = None,
    share: Share | None = None,
) -> int:
    """Encodes this process's share of the shards that a folder lacks, and returns the number of their examples.

    read: from ranges of examples to a list of batches, one a variant, for each range. encode: samples to latents.
    latent_mask: padding masks ``(B, 1, *S)`` to those of latents.
    """
    share = share or Share()
    shards = {number: manifest.shard(number) for number in manifest.find_missing(folder) if share.takes(number)}
    for number in shards:
        for left in folder.glob(f".{shard_file(folder, number).name}.*.part"):
            left.unlink()  # of a run that was killed
    ranges = {
        number: [shard[first : first + batch_size] for first in range(0, len(shard), batch_size)]
        for number, shard in shards.items()
    }
    stream = read([part for parts in ranges.values() for part in parts])
    num_missing = sum(map(len, shards.values()))
    done = manifest.num - num_missing
    for number, parts in ranges.items():
        pieces: list[dict[str, Tensor]] = []
        for part in parts:
            batches = next(stream)
            pieces.append(_encode(batches, encode, latent_mask))
            done += len(part)
            if progress is not None:
                progress(f"latents of {folder.name}", done, manifest.num)
        state = {name: torch.cat([piece[name] for piece in pieces]) for name in pieces[0]}
        write_shard(folder, number, state, manifest.dtype)
    return num_missing


def _encode(
    variants: Sequence[Batch], encode: Callable[[Tensor], Tensor], latent_mask: Callable[[Tensor], Tensor] | None
) -> dict[str, Tensor]:
    """Returns the tensors of a shard for some examples, given as one batch for each variant."""
    state = {LATENTS: torch.stack([encode(batch.sample).cpu() for batch in variants], 1)}
    masks = [mask for batch in variants if (mask := batch.conditioning(latent_mask).padding_mask) is not None]
    if masks:
        state[PADDING_MASK] = torch.stack(masks, 1)
    return state | labels_and_actions(variants[0])


def labels_and_actions(batch: Batch) -> dict[str, Tensor]:
    """Returns the labels and the actions of a batch by their names in a shard."""
    actions = {} if batch.actions is None else {ACTIONS: batch.actions}
    return {LABEL + name: label for name, label in batch.labels.items()} | actions


def write_shard(folder: Path, number: int, state: Mapping[str, Tensor], dtype: str) -> None:
    """Writes one shard, whole or not at all: latents in the dtype, masks in a byte, all else as it is.

    Raises ValueError where a latent is not finite or does not fit the dtype.
    """
    stored = state[LATENTS].to("cpu", DTYPES[dtype])
    if not bool(torch.isfinite(stored).all()):
        worst = state[LATENTS].abs().max().item()
        raise ValueError(
            f"latents of shard {number} are not finite as {dtype} (largest: {worst:.3g}): set latents.dtype=float32, "
            "or train the autoencoder again"
        )
    narrower = {GIVEN: DTYPES[dtype], PADDING_MASK: torch.uint8, MASK: torch.uint8}
    kept = {name: tensor.to("cpu", narrower.get(name)) for name, tensor in state.items() if name != LATENTS}
    weights.save(shard_file(folder, number), {LATENTS: stored, **kept}, {})

"""Latents that were encoded once: memory-mapped shards and a manifest that says what they were made of.

A folder holds ``manifest.json`` and ``00000.safetensors`` …, each shard with the latents
``(N, variants, c, *s)`` of neighbouring examples, their masks ``(N, variants, 1, *s)`` where padding is told, their
rows ``(N, k, n)`` of numbers as the samples have them, and their labels. A shard is complete or absent.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scm_media import weights
from scm_media.data.dataset import Dataset
from scm_media.data.examples import Batch, Example

MANIFEST = "manifest.json"
DTYPES: Mapping[str, torch.dtype] = {"float16": torch.float16, "float32": torch.float32}
LATENTS, PADDING_MASK, ACTIONS, LABEL = "latents", "padding_mask", "actions", "label."


@dataclass(frozen=True)
class Manifest:
    """What latents were made of and how they are laid out.

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
        """How many files the latents are in."""
        return -(-self.num // self.shard_size)

    def shard(self, number: int) -> range:
        """The examples of a shard."""
        return range(number * self.shard_size, min(self.num, (number + 1) * self.shard_size))

    def save(self, folder: Path) -> None:
        """Writes it into the folder."""
        weights.write_whole(folder / MANIFEST, (json.dumps(asdict(self), indent=2) + "\n").encode())

    @classmethod
    def load(cls, folder: Path) -> Manifest:
        """The manifest of a folder; ValueError where it cannot be read."""
        file = folder / MANIFEST
        try:
            return cls(**json.loads(file.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise ValueError(f"{file} is no manifest of latents ({error}): delete {folder} and encode again") from error


def check_same(folder: Path, expected: Manifest, keys: Sequence[str] | None = None) -> Manifest:
    """The folder's manifest; ValueError that names what differs from the expected one (in ``keys``, default all)."""
    found = Manifest.load(folder)
    there, wanted = _told(found, keys), _told(expected, keys)
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
    return found


def _told(manifest: Manifest, keys: Sequence[str] | None) -> dict[str, Any]:
    """The values of these keys (None: all), the modality's one by one."""
    values = asdict(manifest)
    told = {key: values[key] for key in keys or values}
    modality = told.pop("modality", {})
    return told | {f"modality.{key}": value for key, value in modality.items()}


def missing_shards(folder: Path, manifest: Manifest) -> list[int]:
    """Numbers of the shards that are not there yet."""
    return [number for number in range(manifest.num_shards) if not _file(folder, number).exists()]


def write_shard(
    folder: Path,
    number: int,
    latents: Tensor,
    labels: Mapping[str, Tensor],
    captions: Sequence[str] | None,
    dtype: str,
    padding_mask: Tensor | None = None,
    actions: Tensor | None = None,
) -> None:
    """Writes one shard, whole or not at all: latents ``(N, variants, c, *s)``, labels ``(N,)``, masks of the latents.

    actions: ``(N, k, n)``, in float32 whatever latents are stored as: a variant has the rows of its example.
    Raises ValueError where a latent is not finite or does not fit the dtype.
    """
    stored = latents.to("cpu", DTYPES[dtype])
    if not bool(torch.isfinite(stored).all()):
        worst = latents.abs().max().item()
        raise ValueError(
            f"latents of shard {number} are not finite as {dtype} (largest: {worst:.3g}): set latents.dtype=float32, "
            "or train the autoencoder again"
        )
    state = {LATENTS: stored, **{LABEL + name: label.cpu() for name, label in labels.items()}}
    if padding_mask is not None:
        state[PADDING_MASK] = padding_mask.to("cpu", torch.uint8)
    if actions is not None:
        state[ACTIONS] = actions.cpu()
    weights.save(_file(folder, number), state, {}, {"captions": None if captions is None else list(captions)})


def _file(folder: Path, number: int) -> Path:
    return folder / f"{number:05d}.safetensors"


class LatentDataset(Dataset):
    """Latents in place of the samples of a dataset; their batches are marked as ``encoded``.

    Of several variants of an example, a batch's generator chooses one; without a generator it is the first.
    Raises ValueError where shards are missing, damaged or of another shape than the manifest's.
    """

    def __init__(self, folder: Path, of: Dataset) -> None:
        self.folder, self.manifest = folder, Manifest.load(folder)
        if missing := missing_shards(folder, self.manifest):
            raise ValueError(
                f"{folder} is not complete: {len(missing)} of {self.manifest.num_shards} shards are missing; the same "
                f"scm-media encode command goes on with them (or delete {folder.parent} to train without)"
            )
        self.label_names, self.label_counts = of.label_names, of.label_counts
        self.rejects, self.rejected = of.rejects, of.rejected
        self.action_names = of.action_names
        self.shape = tuple(self.manifest.shape)
        self._opened: dict[int, Mapping[str, Tensor]] = {}
        self._captions: list[str | None] = []
        labels = []
        for number in range(self.manifest.num_shards):
            component = self._open(number)
            labels.append({name: component.state[LABEL + name] for name in self.label_names})
            self._captions += component.info["captions"] or [None] * len(self.manifest.shard(number))
        self._labels = {name: torch.cat([shard[name] for shard in labels]) for name in self.label_names}

    def _open(self, number: int) -> weights.Component:
        file = _file(self.folder, number)
        remedy = "delete it, and the same scm-media encode command makes it anew"
        try:
            component = weights.read(file, check=False)  # tensors stay mapped: a cache may be larger than the memory
        except ValueError as error:
            raise ValueError(f"{file} is no whole shard of latents: {remedy}") from error
        wanted = {LATENTS, *(LABEL + name for name in self.label_names), *([ACTIONS] if self.action_names else [])}
        if lacking := wanted - component.state.keys():
            raise ValueError(f"{file} holds no {', '.join(sorted(lacking))}: {remedy}")
        latents = component.state[LATENTS]
        expected = (len(self.manifest.shard(number)), self.manifest.variants, *self.shape)
        if latents.shape != expected:
            raise ValueError(f"{file} holds latents {tuple(latents.shape)}, expected {expected}: {remedy}")
        self._opened[number] = component.state
        return component

    def __getstate__(self) -> dict[str, Any]:
        # A process of its own maps the files itself: sent over, they would be copied.
        return {**self.__dict__, "_opened": {}}

    def __len__(self) -> int:
        return self.manifest.num

    def __getitem__(self, index: int) -> Example:
        batch = self.batch([index])
        labels = {name: label.item() for name, label in batch.labels.items()}
        padding_mask, actions = (
            None if tensor is None else tensor[0] for tensor in (batch.padding_mask, batch.actions)
        )
        return Example(batch.sample[0], labels, self._captions[index], f"{self.folder}#{index}", padding_mask, actions)

    def batch(self, indices: Sequence[int], generators: Sequence[torch.Generator] | None = None) -> Batch:
        """The batch of these examples, latents ``(B, c, *s)`` in float32, with their masks where there are any."""
        variants = [0] * len(indices)
        if generators is not None and self.manifest.variants > 1:
            variants = [int(torch.randint(self.manifest.variants, (), generator=own)) for own in generators]
        places = list(zip(indices, variants, strict=True))
        masks = [self._latent(*place, PADDING_MASK) for place in places] if self._masked() else []
        chosen = torch.as_tensor(indices, dtype=torch.int64)
        captions = [caption for index in indices if (caption := self._captions[index]) is not None]
        return Batch(
            torch.stack([self._latent(*place) for place in places]).float(),
            {name: label[chosen] for name, label in self._labels.items()},
            captions if len(captions) == len(indices) else None,
            encoded=True,
            padding_mask=torch.stack(masks).float() if masks else None,
            actions=torch.stack([self._row(index) for index in indices]) if self.action_names else None,
        )

    def _row(self, index: int) -> Tensor:
        number, row = divmod(index, self.manifest.shard_size)
        return self._shard(number)[ACTIONS][row]

    def _latent(self, index: int, variant: int, what: str = LATENTS) -> Tensor:
        number, row = divmod(index, self.manifest.shard_size)
        return self._shard(number)[what][row, variant]

    def _masked(self) -> bool:
        return PADDING_MASK in self._shard(0)

    def _shard(self, number: int) -> Mapping[str, Tensor]:
        if number not in self._opened:
            self._open(number)
        return self._opened[number]


def encode_missing(
    folder: Path,
    manifest: Manifest,
    read: Callable[[Sequence[range]], Any],
    encode: Callable[[Tensor], Tensor],
    batch_size: int,
    progress: Callable[[str, int, int], None] | None = None,
    latent_mask: Callable[[Tensor], Tensor] | None = None,
) -> int:
    """Encodes the shards that are not there yet and returns how many examples that were.

    read: stretches of examples to an iterator of one list of batches (a batch a variant) for each of them.
    latent_mask: from masks ``(B, 1, *S)`` to those of latents, for samples that tell what is padding.
    """
    missing = missing_shards(folder, manifest)
    for left in folder.glob(".*.part"):
        left.unlink()  # of a run that was killed
    stretches = {
        number: [
            range(first, min(first + batch_size, shard.stop)) for first in range(shard.start, shard.stop, batch_size)
        ]
        for number in missing
        for shard in [manifest.shard(number)]
    }
    stream = read([stretch for number in missing for stretch in stretches[number]])
    num_missing = sum(len(manifest.shard(number)) for number in missing)
    done = manifest.num - num_missing
    for number in missing:
        latents, labels, captions, masks, rows = [], [], [], [], []
        for stretch in stretches[number]:
            batches = next(stream)
            latents.append(torch.stack([encode(batch.sample).cpu() for batch in batches], dim=1))
            padding_mask = [
                mask for batch in batches if (mask := batch.conditioning(latent_mask).padding_mask) is not None
            ]
            masks += [torch.stack(padding_mask, dim=1)] if padding_mask else []
            rows += [] if batches[0].actions is None else [batches[0].actions]
            labels.append(batches[0].labels)
            captions.append(batches[0].captions)
            done += len(stretch)
            if progress is not None:
                progress(f"latents of {folder.name}", done, manifest.num)
        joined = {name: torch.cat([part[name] for part in labels]) for name in labels[0]}
        words = None if None in captions else [word for part in captions for word in part]
        mask, actions = (torch.cat(parts) if parts else None for parts in (masks, rows))
        write_shard(folder, number, torch.cat(latents), joined, words, manifest.dtype, mask, actions)
    return num_missing

"""A dataset of latents that lie on a disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from scm_media import weights
from scm_media.data import Batch, Dataset, Example
from scm_media.latents.manifest import ACTIONS, LABEL, LATENTS, PADDING_MASK, Manifest, shard_file
from scm_media.prompts import LABEL as PROMPT


class LatentDataset(Dataset):
    """Latents in place of the samples of a dataset; their batches are marked as ``encoded``.

    From several variants of an example, a batch's generator chooses one; without a generator it is the first.
    Raises ValueError where shards are missing, damaged or of another shape than the manifest's.
    """

    manifest_type: ClassVar[Any] = Manifest
    draws_texts: ClassVar[bool] = True
    """Whether batches draw one of an example's texts; otherwise it is the stored one."""
    command: ClassVar[str] = "the same scm-media encode command"
    """The command that makes missing shards, for errors."""

    def __init__(self, folder: Path, of: Dataset) -> None:
        self.folder, self.manifest = folder, self.manifest_type.load(folder)
        if missing := self.manifest.find_missing(folder):
            raise ValueError(
                f"{folder} is not complete: {len(missing)} of {self.manifest.num_shards} shards are missing; "
                f"{self.command} goes on with them (or delete {self.manifest.top(folder)} to train without)"
            )
        self.label_names, self.label_counts = of.label_names, of.label_counts
        self.rejects, self.rejected = of.rejects, of.rejected
        self.caption_table = of.caption_table if self.draws_texts else None
        self.action_names, self.shape = of.action_names, tuple(self.manifest.shape)
        self._opened: dict[int, Mapping[str, Tensor]] = {}
        for number in range(self.manifest.num_shards):
            self._open(number)
        self._labels = {
            name: torch.cat([state[LABEL + name] for state in self._opened.values()]) for name in self.label_names
        }

    def _open(self, number: int) -> weights.Component:
        file = shard_file(self.folder, number)
        remedy = f"delete it, and {self.command} makes it anew"
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
        padding_mask, actions = (None if part is None else part[0] for part in (batch.padding_mask, batch.actions))
        return Example(batch.sample[0], labels, f"{self.folder}#{index}", padding_mask, actions)

    def batch(self, indices: Sequence[int], generators: Sequence[torch.Generator] | None = None) -> Batch:
        """Returns the batch of these examples, latents ``(B, c, *s)`` in float32."""
        variants = [0] * len(indices)
        if generators is not None and self.manifest.variants > 1:
            variants = [int(torch.randint(self.manifest.variants, (), generator=own)) for own in generators]
        chosen = torch.as_tensor(indices, dtype=torch.int64)
        pairs = list(zip(indices, variants, strict=True))
        masks = [self._row(PADDING_MASK, *pair) for pair in pairs] if PADDING_MASK in self._shard(0) else []
        actions = [self._row(ACTIONS, index) for index in indices] if self.action_names else []
        labels = {name: label[chosen] for name, label in self._labels.items()}
        if self.caption_table is not None:
            labels[PROMPT] = self.caption_table.draw(indices, generators)
        return Batch(
            torch.stack([self._row(LATENTS, *pair) for pair in pairs]).float(),
            labels,
            encoded=True,
            padding_mask=torch.stack(masks).float() if masks else None,
            actions=torch.stack(actions) if actions else None,
        )

    def _row(self, name: str, index: int, *variant: int) -> Tensor:
        number, row = divmod(index, self.manifest.shard_size)
        return self._shard(number)[name][(row, *variant)]

    def _shard(self, number: int) -> Mapping[str, Tensor]:
        if number not in self._opened:
            self._open(number)
        return self._opened[number]

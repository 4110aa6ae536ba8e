"""Trajectories of a teacher on disk: written once, and read by stages that are trained on them.

A shard holds points ``(N, 1 + K, c, *s)``, the end of each trajectory first and then its K points from noise on, and
what the teacher was given: labels ``(N,)``, padding masks ``(N, 1, 1, *s)``, actions ``(N, k, n)``, and for given parts
the latent ``(N, c, *s)`` and its mask ``(N, 1, *s)``. Trajectory i follows from the seed and i alone, so that processes
may share the shards, and a run that was stopped goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from scm_media.data import Batch, Dataset, Example
from scm_media.latents.cache import labels_and_actions, write_shard
from scm_media.latents.dataset import LatentDataset
from scm_media.latents.manifest import GIVEN, GUIDANCE, LATENTS, MASK, Sharded
from scm_media.seeds import mix
from scm_media.trajectories import Trajectory

MAX_HELD_OUT = 1024
"""Trajectories at most that validation keeps for itself."""


@dataclass(frozen=True, kw_only=True)
class TrajectoryManifest(Sharded):
    """Describes the teacher of trajectories, how its ODE was solved, and the layout in files.

    teacher, guide, autoencoder, dataset: digests of weights and of the examples that labels were taken from. sampling:
    the sampler, guidance and conditioning mask. times: radians, from noise to data, without the end. batch_size:
    trajectories that are solved at once, which their noise follows from.
    """

    teacher: str
    guide: str | None
    autoencoder: str
    dataset: str | None
    sampling: dict[str, Any]
    times: list[float]
    seed: int
    batch_size: int
    what: ClassVar[str] = "trajectories"
    remedy: ClassVar[str] = "and train stage=trajectories again"

    @property
    def variants(self) -> int:
        """The number of latents of a trajectory: its points and its end."""
        return len(self.times) + 1


class TrajectoryDataset(LatentDataset):
    """The ends of trajectories as latents; with points, batches have a ``Trajectory`` as well.

    split: the last trajectories, one in 32 and 1,024 at most, are held out. with_points: a batch's generators choose
    a point of each trajectory, all equally likely; without generators it is the first. of: the dataset whose labels
    the trajectories have. Raises ValueError as ``LatentDataset``.
    """

    manifest_type = TrajectoryManifest
    draws_texts = False
    command = "scm-media train with stage=trajectories"

    def __init__(self, folder: Path, of: Dataset, split: str = "train", with_points: bool = False) -> None:
        super().__init__(folder, of)
        self.with_points = with_points
        middle = self.manifest.num - num_held_out(self.manifest.num)
        self.part = range(middle) if split == "train" else range(middle, self.manifest.num)
        self._times = torch.tensor(self.manifest.times)

    def __len__(self) -> int:
        return len(self.part)

    def batch(self, indices: Sequence[int], generators: Sequence[torch.Generator] | None = None) -> Batch:
        """Returns the batch of these trajectories: their ends ``(B, c, *s)`` in float32, and a point of each."""
        chosen = [self.part[index] for index in indices]
        batch = super().batch(chosen)
        if not self.with_points:
            return batch
        points = [0] * len(chosen)
        if generators is not None:
            points = [int(torch.randint(len(self._times), (), generator=own)) for own in generators]
        rows = list(zip(chosen, points, strict=True))
        kept = {
            name: [self._row(name, index) for index in chosen] for name in (GIVEN, MASK, GUIDANCE) if self._has(name)
        }
        trajectory = Trajectory(
            x_t=torch.stack([self._row(LATENTS, index, 1 + point) for index, point in rows]).float(),
            t=self._times[points],
            x0=batch.sample,
            **{name: torch.stack(tensors).float() for name, tensors in kept.items()},
        )
        return replace(batch, trajectory=trajectory)

    def _has(self, name: str) -> bool:
        return name in self._shard(0)


def num_held_out(num: int) -> int:
    """Returns how many of so many trajectories are held out."""
    return max(1, min(MAX_HELD_OUT, num // 32))


class MixedDataset(Dataset):
    """Latents of data, and ends of trajectories in place of a fraction of them.

    latents: encoded data. fraction: the probability that an example is replaced by the end of a trajectory; the
    generators of a batch decide. Raises ValueError for data that are not encoded.
    """

    def __init__(self, latents: Dataset, ends: TrajectoryDataset, fraction: float) -> None:
        if not isinstance(latents, LatentDataset):
            raise ValueError(
                "student.generated mixes latents of the data with ends of trajectories, and the data are not encoded: "
                "run scm-media encode with this recipe first, or set student.generated=1 or 0"
            )
        self.latents, self.ends, self.fraction = latents, ends, fraction
        self.label_names, self.label_counts, self.shape = latents.label_names, latents.label_counts, latents.shape
        self.action_names = latents.action_names

    def __len__(self) -> int:
        return len(self.latents)

    def __getitem__(self, index: int) -> Example:
        return self.latents[index]

    def batch(self, indices: Sequence[int], generators: Sequence[torch.Generator] | None = None) -> Batch:
        """Returns a batch of latents, with ends of trajectories in the places that the generators choose."""
        batch = self.latents.batch(indices, generators)
        if generators is None:
            return batch
        draws = [torch.rand(2, generator=own, dtype=torch.float64).tolist() for own in generators]
        places = [place for place, (chosen, _) in enumerate(draws) if chosen < self.fraction]
        if not places:
            return batch
        ends = self.ends.batch([int(draws[place][1] * len(self.ends)) for place in places])

        def merge(own: Tensor, other: Tensor) -> Tensor:
            own = own.clone()
            own[places] = other.to(own)
            return own

        def merge_if_there(own: Tensor | None, other: Tensor | None) -> Tensor | None:
            return own if own is None or other is None else merge(own, other)

        return replace(
            batch,
            sample=merge(batch.sample, ends.sample),
            labels={name: merge(label, ends.labels[name]) for name, label in batch.labels.items()},
            padding_mask=merge_if_there(batch.padding_mask, ends.padding_mask),
            actions=merge_if_there(batch.actions, ends.actions),
        )


Solve = Callable[[Batch, int], dict[str, Tensor]]
"""From a batch and a seed to the tensors of a shard but for labels and actions."""


def write_missing_trajectories(
    folder: Path,
    manifest: TrajectoryManifest,
    read: Callable[[int, int], Iterable[Batch]],
    solve: Solve,
    rank: int = 0,
    world: int = 1,
    progress: Callable[[str, int, int], None] | None = None,
) -> int:
    """Writes this rank's share of the shards that a folder lacks, and returns the number of trajectories written.

    read: from the number of the first batch and a number of batches to batches of the data, whose labels, actions and
    masks the teacher gets. solve: the tensors of a batch's trajectories, by ``LATENTS`` and the names above.
    """
    missing = [number for number in manifest.find_missing(folder) if number % world == rank]
    todo, done = sum(len(manifest.shard(number)) for number in missing), 0
    for number in missing:
        size, pieces = len(manifest.shard(number)), []
        first, num = number * manifest.shard_size // manifest.batch_size, -(-size // manifest.batch_size)
        for place, batch in enumerate(read(first, num)):
            pieces.append(solve(batch, mix(manifest.seed, first + place)) | labels_and_actions(batch))
            done += len(batch.sample)
            if progress is not None:
                progress("trajectories", min(done, todo), todo)
        state = {name: torch.cat([piece[name] for piece in pieces])[:size] for name in pieces[0]}
        write_shard(folder, number, state, manifest.dtype)
    return todo

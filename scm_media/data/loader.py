"""Batches from any step on, the same as those of a run that was never interrupted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import DataLoader

from scm_media.data import order
from scm_media.data.dataset import Dataset
from scm_media.data.examples import Batch
from scm_media.data.workers import outlive_first_signal

SECONDS_FOR_A_BATCH = 600
"""How long a batch may take before its worker counts as stopped."""


@dataclass(frozen=True)
class _Steps:
    """Step number to batch: what a worker needs to know, and nothing that changes.

    A user's error is handed over as a value: raised in a worker it would reach the user wrapped in a traceback.
    """

    dataset: Dataset
    batch_size: int
    seed: int
    rank: int
    world: int

    def __getitem__(self, step: int) -> Batch | ValueError | OSError:
        try:
            places = self._places(step)
            generators = [torch.Generator().manual_seed(order.mix(self.seed, *place)) for place in places]
            return self.dataset.batch([index for _, index in places], generators)
        except (ValueError, OSError) as error:
            return error

    def _places(self, step: int) -> list[tuple[int, int]]:
        buckets = self.dataset.buckets
        if buckets is None:
            return order.places(step, self.batch_size, self.rank, self.world, len(self.dataset), self.seed)
        return order.bucketed_places(step, self.batch_size, self.rank, self.world, buckets, self.seed)


@dataclass(frozen=True)
class _Stretches:
    """Number of a stretch to its batches, one a variant, unaugmented where there is one variant alone."""

    dataset: Dataset
    stretches: Sequence[range]
    variants: int
    seed: int

    def __getitem__(self, number: int) -> list[Batch] | ValueError | OSError:
        stretch = self.stretches[number]
        try:
            if self.variants == 1:
                return [self.dataset.batch(stretch)]
            return [self.dataset.batch(stretch, self._generators(stretch, v)) for v in range(self.variants)]
        except (ValueError, OSError) as error:
            return error

    def _generators(self, stretch: range, variant: int) -> list[torch.Generator]:
        return [torch.Generator().manual_seed(order.mix(self.seed, variant, index)) for index in stretch]


def _as_it_is(batch: Any) -> Any:
    return batch


def _each(source: Any, numbers: range, num_workers: int, seed: int) -> Iterator[Any]:
    """Yields what ``source`` holds under each of the numbers, in order, read by workers; raises the error it gives."""
    found: Iterable[Any] = map(source.__getitem__, numbers)
    if num_workers > 0:
        # Without a generator of its own a DataLoader draws its base seed from the global one.
        own = torch.Generator().manual_seed(seed)
        found = DataLoader(
            source,
            batch_size=None,
            sampler=numbers,
            num_workers=num_workers,
            collate_fn=_as_it_is,
            generator=own,
            worker_init_fn=outlive_first_signal,
            timeout=SECONDS_FOR_A_BATCH,
        )
    for batch in _waited_for(found):
        if isinstance(batch, ValueError | OSError):
            raise batch
        if num_workers > 0:
            found_by_worker = batch if isinstance(batch, list) else [batch]
            source.dataset.count_skipped([pair for part in found_by_worker for pair in part.skipped])
        yield batch


def _waited_for(found: Iterable[Any]) -> Iterator[Any]:
    """Yields what workers bring; ValueError that says what to do where one is stopped or gone."""
    try:
        yield from found
    except RuntimeError as error:
        reason = (str(error).splitlines() or [""])[0]
        if "DataLoader" not in reason:
            raise
        raise ValueError(
            f"a worker that reads data stopped ({reason}): a file may lie on a place that does not answer, or memory "
            "may be short; look with scm-media check, or set trainer.num_workers=0"
        ) from error


def stretches(
    dataset: Dataset, ranges: Sequence[range], variants: int, seed: int, num_workers: int = 0
) -> Iterator[list[Batch]]:
    """For each range of examples its batches: one as the examples are, or so many variants by the augmentation.

    A variant of an example depends on (seed, variant, index) alone.
    """
    return _each(_Stretches(dataset, ranges, variants, seed), range(len(ranges)), num_workers, seed)


def batches(
    dataset: Dataset,
    batch_size: int,
    start_step: int,
    num_steps: int,
    seed: int,
    rank: int = 0,
    world: int = 1,
    num_workers: int = 0,
) -> Iterator[Batch]:
    """The batches of steps ``start_step`` … ``start_step + num_steps − 1`` of one rank, ``batch_size`` examples each.

    Batch and augmentation of a step depend on (seed, rank, world, step) alone, with any number of workers; torch's
    global generator is left untouched.
    """
    steps = _Steps(dataset, batch_size, seed, rank, world)
    return _each(steps, range(start_step, start_step + num_steps), num_workers, seed)

"""Batches from any step on, the same as those of a run that was never interrupted."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import DataLoader

from scm_media.data import order
from scm_media.data.dataset import Dataset
from scm_media.data.examples import Batch
from scm_media.data.workers import outlive_first_signal
from scm_media.seeds import mix

SECONDS_FOR_A_BATCH = 600
"""Seconds that a batch may take before its worker counts as stopped."""


@dataclass(frozen=True)
class _Loader(ABC):
    """Loads batches by number in a worker; it holds nothing that changes.

    A user's error is handed over as a value: raised in a worker it would reach the user wrapped in a traceback.
    """

    dataset: Dataset
    seed: int

    def __getitem__(self, number: int) -> list[Batch] | ValueError | OSError:
        try:
            return self.load(number)
        except (ValueError, OSError) as error:
            return error

    @abstractmethod
    def load(self, number: int) -> list[Batch]: ...


@dataclass(frozen=True)
class _Steps(_Loader):
    """Loads this process's part of a batch by the number of its pass, counted over all steps."""

    batch_size: int
    division: order.Division

    def load(self, number: int) -> list[Batch]:
        step, own = divmod(number, self.division.passes)
        part, buckets = self.division.part(self.batch_size, own), self.dataset.buckets
        if buckets is None:
            begin = step * self.batch_size
            chosen = order.select(range(begin + part.start, begin + part.stop), len(self.dataset), self.seed)
        else:
            chosen = order.select_from_bucket(step, part, self.batch_size, buckets, self.seed)
        generators = [torch.Generator().manual_seed(mix(self.seed, *pair)) for pair in chosen]
        return [self.dataset.batch([index for _, index in chosen], generators)]


@dataclass(frozen=True)
class _Ranges(_Loader):
    """Loads the batches of a range of examples, one for each variant; a single variant is not augmented."""

    ranges: Sequence[range]
    variants: int

    def load(self, number: int) -> list[Batch]:
        indices = self.ranges[number]
        if self.variants == 1:
            return [self.dataset.batch(indices)]
        return [
            self.dataset.batch(
                indices, [torch.Generator().manual_seed(mix(self.seed, variant, index)) for index in indices]
            )
            for variant in range(self.variants)
        ]


def _identity(batches: Any) -> Any:
    return batches


def _load_all(loader: _Loader, numbers: range, num_workers: int) -> Iterator[list[Batch]]:
    """Yields what is loaded for each number, in order, by worker processes if there are any; raises users' errors."""
    loaded: Iterable[Any] = map(loader.__getitem__, numbers)
    if num_workers > 0:
        loaded = DataLoader(
            loader,  # type: ignore[arg-type]
            batch_size=None,
            sampler=numbers,
            num_workers=num_workers,
            collate_fn=_identity,
            # Without a generator of its own a DataLoader draws its base seed from the global one.
            generator=torch.Generator().manual_seed(loader.seed),
            worker_init_fn=outlive_first_signal,
            timeout=SECONDS_FOR_A_BATCH,
        )
    iterator = iter(loaded)
    try:
        with worker_errors():
            while (batches := _fetch(iterator)) is not None:
                if isinstance(batches, ValueError | OSError):
                    raise batches
                if num_workers > 0:  # a worker counts in its own copy of the dataset
                    loader.dataset.count_skipped([pair for batch in batches for pair in batch.skipped])
                yield batches
    finally:
        _end_workers(iterator)


def _fetch(iterator: Iterator[Any]) -> Any:
    """Returns what is loaded next, None at the end; RuntimeError where a worker ends while it hands a batch over."""
    try:
        return next(iterator, None)
    except (ConnectionError, EOFError) as error:  # PyTorch saw the worker alive still
        raise RuntimeError(f"DataLoader worker ended while it handed a batch over: {error!r}") from error


def _end_workers(iterator: Iterator[Any]) -> None:
    """Ends the worker processes of an iterator, if it has any.

    Otherwise PyTorch may raise the death of a worker a second time, wherever the main thread is then.
    """
    if (shut_down := getattr(iterator, "_shutdown_workers", None)) is not None:
        with suppress(RuntimeError):
            shut_down()


@contextmanager
def worker_errors() -> Iterator[None]:
    """Raises ValueError with the remedy where a worker is stopped or gone.

    PyTorch raises the death of a worker wherever the main thread is at that moment: in a step, while no batch is asked
    for, too.
    """
    try:
        yield
    except RuntimeError as error:
        reason = (str(error).splitlines() or [""])[0]
        if "DataLoader" not in reason:
            raise
        raise ValueError(
            f"a worker that reads data stopped ({reason}): a file may lie on a disk that does not answer, or memory "
            "may be short; look with scm-media check, or set trainer.num_workers=0"
        ) from error


def read_ranges(
    dataset: Dataset, ranges: Sequence[range], variants: int, seed: int, num_workers: int = 0
) -> Iterator[list[Batch]]:
    """Yields a list of batches for each range of examples: one unaugmented batch, or one for each of several variants.

    The augmentation of a variant of an example depends on (seed, variant, index) alone.
    """
    return _load_all(_Ranges(dataset, seed, ranges, variants), range(len(ranges)), num_workers)


def batches(
    dataset: Dataset,
    batch_size: int,
    first_step: int,
    num_steps: int,
    seed: int,
    num_workers: int = 0,
    division: order.Division | None = None,
) -> Iterator[Batch]:
    """Yields the batches of ``batch_size`` examples of ``num_steps`` steps from ``first_step`` on.

    division: how a batch is divided; None for not at all. With one, this place's parts are yielded, pass by pass.
    Examples and augmentation of a step depend on (seed, step) alone, however it is divided, and with any number of
    workers; torch's global generator is left untouched.
    """
    division = division or order.Division()
    steps = _Steps(dataset, seed, batch_size, division)
    passes = range(first_step * division.passes, (first_step + num_steps) * division.passes)
    for (batch,) in _load_all(steps, passes, num_workers):
        yield batch

"""The order in which examples are seen: a pure function of (seed, step, place in the batch), with no state to save.

Each epoch is a permutation of all examples, drawn from (seed, epoch); steps walk along the epochs laid end to end,
and the parts of a step's batch take neighbouring stretches. A batch may span two epochs; no example is left out.

Where a batch must be of one bucket, each bucket has such an order of its own, and each step a bucket.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from scm_media.seeds import mix


@lru_cache(maxsize=16)
def _permutation(num_examples: int, seed: int, epoch: int) -> Tensor:
    generator = torch.Generator().manual_seed(mix(seed, epoch))
    return torch.randperm(num_examples, generator=generator)


@dataclass(frozen=True)
class Division:
    """Says how the batch of a step is divided: into passes, each of which ``num_places`` places share.

    place: this process's place. A place is a device, or a group of devices that share the tokens of each sample.
    """

    place: int = 0
    num_places: int = 1
    passes: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.place < self.num_places or self.passes < 1:
            raise ValueError(f"place must lie in [0, num_places), and passes be at least 1; got {self}")

    def part(self, batch_size: int, number: int) -> range:
        """Returns the samples of a batch, counted from 0, that are this place's in pass ``number`` of its step.

        Raises ValueError for a batch that cannot be divided equally.
        """
        num, rest = divmod(batch_size, self.num_places * self.passes)
        if rest or num < 1:
            raise ValueError(
                f"batch_size {batch_size} must be a multiple of {self.num_places} parts (num_devices x num_nodes / "
                f"context_parallel) x trainer.accumulate {self.passes}: set one, or another number of devices"
            )
        first = (number * self.num_places + self.place) * num
        return range(first, first + num)


def _refuse_none(num_examples: int) -> None:
    if num_examples < 1:
        raise ValueError(
            "the data have no example to train on: scm-media check RECIPE says what was found and what was left out"
        )


def select(part: range, num_examples: int, seed: int) -> list[tuple[int, int]]:
    """Returns (epoch, index) of each example of a part of the order, counted from its beginning."""
    _refuse_none(num_examples)
    position, end = part.start, part.stop
    found: list[tuple[int, int]] = []
    while position < end:
        epoch, start = divmod(position, num_examples)
        stop = min(num_examples, start + end - position)
        found.extend((epoch, index) for index in _permutation(num_examples, seed, epoch)[start:stop].tolist())
        position += stop - start
    return found


def select_from_bucket(step: int, part: range, batch_size: int, buckets: Tensor, seed: int) -> list[tuple[int, int]]:
    """Returns (epoch, index) of each example of a part of a step's batch, all of one bucket.

    buckets: ``(N,)`` int64, that of each example. part: the samples of the batch, counted from 0. A step takes the
    bucket of one example, and N steps that of every example once, in an order drawn from (seed, number of the N steps):
    buckets come as often as they are large, and every example is seen equally often.
    """
    num = len(buckets)
    _refuse_none(num)
    cycle, at = divmod(step, num)
    drawn = buckets[_permutation(num, mix(seed, num), cycle)[: at + 1]]
    bucket = drawn[at]
    own = torch.nonzero(buckets == bucket).flatten()
    begin = (cycle * len(own) + int((drawn[:at] == bucket).sum())) * batch_size
    inner = select(range(begin + part.start, begin + part.stop), len(own), mix(seed, int(bucket)))
    return [(epoch, int(own[index])) for epoch, index in inner]

"""The order in which examples are seen: a pure function of (seed, step, place in the batch), with no state to save.

Each epoch is a permutation of all examples, drawn from (seed, epoch); steps walk along the epochs laid end to end,
and the passes and ranks of a step take neighbouring
stretches. A batch may span two epochs; no example is left out.

Where a batch must be of one bucket, each bucket has such an order of its own, and each step a bucket.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from scm_media.seeds import mix


@lru_cache(maxsize=16)
def _permutation(num_examples: int, seed: int, epoch: int) -> Tensor:
    generator = torch.Generator().manual_seed(mix(seed, epoch))
    return torch.randperm(num_examples, generator=generator)


def select(step: int, batch_size: int, rank: int, world: int, num_examples: int, seed: int) -> list[tuple[int, int]]:
    """Returns (epoch, index) of each example of one rank's batch of ``batch_size``; steps count from 0."""
    if num_examples < 1:
        raise ValueError("an order needs at least one example, got a dataset of 0")
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    if not 0 <= rank < world:
        raise ValueError(f"rank must lie in [0, {world}), got {rank}")
    position = (step * world + rank) * batch_size
    end = position + batch_size
    found: list[tuple[int, int]] = []
    while position < end:
        epoch, start = divmod(position, num_examples)
        stop = min(num_examples, start + end - position)
        found.extend((epoch, index) for index in _permutation(num_examples, seed, epoch)[start:stop].tolist())
        position += stop - start
    return found


def select_from_bucket(
    number: int, batch_size: int, rank: int, world: int, buckets: Tensor, seed: int, accumulate: int = 1
) -> list[tuple[int, int]]:
    """Returns (epoch, index) of each example of one rank's batch, all of one bucket; ``buckets`` ``(N,)`` int64.

    number: of the pass, of which a step has ``accumulate``, all of one bucket. A step takes the bucket of one example,
    and N steps that of every example once, in an order drawn from (seed, number of the N steps): buckets come as often
    as they are large, and every example is seen equally often.
    """
    num = len(buckets)
    if num < 1:
        raise ValueError("an order needs at least one example, got a dataset of 0")
    step, part = divmod(number, accumulate)
    cycle, at = divmod(step, num)
    drawn = buckets[_permutation(num, mix(seed, num), cycle)[: at + 1]]
    bucket = drawn[at]
    own = torch.nonzero(buckets == bucket).flatten()
    turn = cycle * len(own) + int((drawn[:at] == bucket).sum())
    inner = select(turn * accumulate + part, batch_size, rank, world, len(own), mix(seed, int(bucket)))
    return [(epoch, int(own[index])) for epoch, index in inner]

"""Noise and random numbers of sample k: functions of (seed, k) alone, for any batch size and device.

Each is a stream of its own: a Philox generator under a 128-bit key of seed (64 bits), sample (48) and stream (16). The
streams below 2^15 are the noise of steps, those from 2^15 on other random numbers of a sample, the last ones random
numbers of a seed. A number that its bits cannot hold is refused, because it would repeat another number's stream.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from scm_media.bounds import MAX_SEED

SEEDS, SAMPLES = MAX_SEED + 1, 2**48
"""Number of seeds, and of samples of one seed."""
FIRST_DRAW, FIRST_OFFSET, STREAMS = 2**15, 2**16 - 2**10, 2**16
"""First stream of a sample's random numbers, first stream of a seed's offsets, and the number of streams."""


def sample_noise(seed: int, indices: Sequence[int], step: int, shape: Sequence[int], window: int = 0) -> Tensor:
    """Returns standard normal noise ``(B, *shape)`` on the CPU; that of sample k is bit-equal in any batch.

    window: number of the window of a sample that is made in several; each has noise of its own. Raises ValueError for
    a seed or index out of range, and for 32,768 steps or more.
    """
    if not 0 <= step < FIRST_DRAW:
        raise ValueError(f"a sample has noise for up to {FIRST_DRAW} steps, got step {step}: ask for fewer steps")
    noise = np.empty((len(indices), *shape), dtype=np.float32)
    for row, index in enumerate(indices):
        _generator(seed, index, step, window).standard_normal(dtype=np.float32, out=noise[row])
    return torch.from_numpy(noise)


def seed_offset(seed: int, stream: int) -> float:
    """Returns a number in [0, 1) for each (seed, stream), with streams from 0 to 1,023."""
    assert 0 <= stream < STREAMS - FIRST_OFFSET
    return float(_generator(seed, 0, STREAMS - 1 - stream).random())


def sample_uniform(seed: int, index: int, stream: int) -> float:
    """Returns a number in [0, 1) for each (seed, index, stream), with streams from 32,768 to 64,511."""
    assert FIRST_DRAW <= stream < FIRST_OFFSET
    return float(_generator(seed, index, stream).random())


def check_samples(seed: int, first: int, num: int = 1) -> None:
    """Raises ValueError for a seed or indices ``first`` to ``first + num - 1`` that have no streams of their own."""
    if not _is_integer(seed) or not 0 <= seed < SEEDS:
        raise ValueError(f"seed must be a whole number from 0 to {SEEDS - 1} (2^63 - 1), got {seed!r}")
    if not _is_integer(first) or not 0 <= first <= SAMPLES - num:
        raise ValueError(
            f"first, the index of the first sample, must be a whole number from 0 to {SAMPLES - num} for {num} "
            f"samples, got {first!r}"
        )


def _is_integer(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _generator(seed: int, index: int, stream: int, window: int = 0) -> np.random.Generator:
    # No stream is so long that it counts into the top 64 of the counter's 256 bits, which number the windows.
    check_samples(seed, index)
    assert 0 <= stream < STREAMS and 0 <= window < 2**64
    key = int(seed) | int(index) << 64 | stream << 112
    return np.random.Generator(np.random.Philox(key=key, counter=window << 192))

"""Noise and draws of clip k: functions of (seed, k) alone, whatever the batch size and the device.

Each is a stream of its own: a Philox generator under a 128-bit key of seed (64 bits), clip (48) and stream (16). The
streams below 2^15 are the noise of steps, those from 2^15 on other draws of a clip, the last ones those of all clips.
A number that its bits cannot hold is refused, because another one would then give the same stream.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from scm_media.bounds import MAX_SEED

SEEDS, CLIPS = MAX_SEED + 1, 2**48
"""How many seeds there are, and how many clips a seed has."""
FIRST_DRAW, FIRST_OFFSET, STREAMS = 2**15, 2**16 - 2**10, 2**16
"""Where the streams of a clip's draws and those of a seed's offsets begin, and how many streams there are."""


def sample_noise(seed: int, indices: Sequence[int], step: int, shape: Sequence[int], window: int = 0) -> Tensor:
    """Returns standard normal noise ``(B, *shape)`` on the CPU, clip k's from (seed, k, step): bit-equal in any batch.

    window: Which part of a clip that is drawn in several, each with noise of its own.
    Raises ValueError for a seed or clip out of range, and for 32,768 steps or more.
    """
    if not 0 <= step < FIRST_DRAW:
        raise ValueError(f"a clip has noise for up to {FIRST_DRAW} steps, got step {step}: ask for fewer steps")
    drawn = np.empty((len(indices), *shape), dtype=np.float32)
    for place, index in enumerate(indices):
        _generator(seed, index, step, window).standard_normal(dtype=np.float32, out=drawn[place])
    return torch.from_numpy(drawn)


def seed_offset(seed: int, stream: int) -> float:
    """Returns a number in [0, 1) for each (seed, stream), with streams from 0 to 1,023."""
    assert 0 <= stream < STREAMS - FIRST_OFFSET
    return float(_generator(seed, 0, STREAMS - 1 - stream).random())


def sample_uniform(seed: int, index: int, stream: int) -> float:
    """Returns a number in [0, 1) for each (seed, clip, stream), with streams from 32,768 to 64,511."""
    assert FIRST_DRAW <= stream < FIRST_OFFSET
    return float(_generator(seed, index, stream).random())


def check_samples(seed: int, first: int, num: int = 1) -> None:
    """Raises ValueError for a seed or clips ``first`` to ``first + num - 1`` that have no randomness of their own."""
    if not _is_index(seed) or not 0 <= seed < SEEDS:
        raise ValueError(f"seed must be a whole number from 0 to {SEEDS - 1} (2^63 - 1), got {seed!r}")
    if not _is_index(first) or not 0 <= first <= CLIPS - num:
        raise ValueError(
            f"first, the number of the first clip, must be a whole number from 0 to {CLIPS - num} for {num} clips, "
            f"got {first!r}"
        )


def _is_index(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _generator(seed: int, index: int, stream: int, window: int = 0) -> np.random.Generator:
    # No draw is so long that it counts into the top 64 of the counter's 256 bits, which number the windows.
    check_samples(seed, index)
    assert 0 <= stream < STREAMS and 0 <= window < 2**64
    key = int(seed) | int(index) << 64 | stream << 112
    return np.random.Generator(np.random.Philox(key=key, counter=window << 192))

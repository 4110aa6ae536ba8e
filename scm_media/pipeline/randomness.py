"""Noise and draws of clip k: functions of (seed, k) alone, whatever the batch size and the device."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def clip_noise(seed: int, indices: Sequence[int], step: int, shape: Sequence[int], window: int = 0) -> Tensor:
    """Standard normal noise ``(B, *shape)`` on the CPU, clip k's from (seed, k, step): bit-equal in any batch.

    window: which part of a clip that is drawn in several, each with noise of its own.
    """
    drawn = np.empty((len(indices), *shape), dtype=np.float32)
    for place, index in enumerate(indices):
        _generator(seed, index, step, window).standard_normal(dtype=np.float32, out=drawn[place])
    return torch.from_numpy(drawn)


def seed_offset(seed: int, stream: int) -> float:
    """A number in [0, 1) for each (seed, stream)."""
    return float(_generator(seed, 0, 2**16 - 1 - stream).random())


def clip_share(seed: int, index: int, stream: int) -> float:
    """A number in [0, 1) for each (seed, clip, stream)."""
    return float(_generator(seed, index, stream).random())


def _generator(seed: int, index: int, stream: int, window: int = 0) -> np.random.Generator:
    # Philox takes the whole 128-bit key, so no two clips, steps or seeds share their noise; no draw is so long that it
    # counts into the top 64 of the counter's 256 bits, which number the windows.
    key = (seed % 2**64) | (index % 2**48) << 64 | (stream % 2**16) << 112
    return np.random.Generator(np.random.Philox(key=key, counter=window << 192))

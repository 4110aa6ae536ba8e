"""Random numbers of a training step that belong to the samples of its batch, not to the device that draws them.

A batch may be one pass of one device, or be divided among devices and passes. Within ``draw_by_sample`` a sample's
noise, time and dropped labels are functions of (seed, its place in the whole batch), so that every division of the
batch trains on the same numbers. Outside it the functions of this module draw from the global random state, as
``torch.randn`` does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch
from torch import Tensor

from scm_media.seeds import mix

BLOCK = 16
"""Samples that are drawn by one call: a GPU then launches a sixteenth of the kernels."""


@dataclass
class _Draws:
    """The numbers of one pass: those of the samples from ``first`` on of a batch of ``total``; counts the draws."""

    seed: int
    first: int
    total: int
    count: int = 0

    def next_seed(self) -> int:
        self.count += 1
        return mix(self.seed, self.count)


_ACTIVE: ContextVar[_Draws | None] = ContextVar("draws", default=None)


@contextmanager
def draw_by_sample(seed: int, first: int, total: int) -> Iterator[None]:
    """Gives each sample numbers of its own while its block runs.

    first: the place in the whole batch of the first sample that the block draws for. total: the number of samples in
    the whole batch. All devices and passes must draw in the same order.
    """
    token = _ACTIVE.set(_Draws(seed, first, total))
    try:
        yield
    finally:
        _ACTIVE.reset(token)


def seed_dropout(seed: int, device: torch.device) -> None:
    """Seeds the global generators of the CPU and of one device, which dropout draws from.

    ``torch.manual_seed`` seeds those of all kinds of devices, and formats a stack trace for each kind that was not used
    yet: a millisecond or more of each step on a CPU.
    """
    if device.type == "cpu":
        torch.default_generator.manual_seed(seed)
    else:
        torch.manual_seed(seed)


def randn_like(x: Tensor) -> Tensor:
    """Returns standard normal noise ``(B, …)`` like x."""
    return _draw(torch.randn, x.shape, x.device, x.dtype)


def rand(*shape: int, device: torch.device | str | None = None, generator: torch.Generator | None = None) -> Tensor:
    """Returns uniform numbers in [0, 1) ``(B, …)``, float32; a generator draws them without regard to samples."""
    return _draw(torch.rand, shape, device, torch.float32, generator)


def randn(*shape: int, device: torch.device | str | None = None, generator: torch.Generator | None = None) -> Tensor:
    """Returns standard normal numbers ``(B, …)``, float32; a generator draws them without regard to samples."""
    return _draw(torch.randn, shape, device, torch.float32, generator)


def places(num: int, generator: torch.Generator | None = None) -> tuple[Tensor, int]:
    """Returns the places ``(num,)`` of the samples in a random order of the whole batch, and the batch's size.

    A generator orders the ``num`` samples alone.
    """
    draws = _ACTIVE.get()
    if draws is None or generator is not None or draws.first + num > draws.total:
        return torch.randperm(num, generator=generator), num
    order = torch.randperm(draws.total, generator=torch.Generator().manual_seed(draws.next_seed()))
    return order[draws.first : draws.first + num], draws.total


def _draw(
    function: Callable[..., Tensor],
    shape: Sequence[int],
    device: torch.device | str | None,
    dtype: torch.dtype,
    generator: torch.Generator | None = None,
) -> Tensor:
    draws, (num, *sizes) = _ACTIVE.get(), shape
    if draws is None or generator is not None or num == 0:
        return function(tuple(shape), generator=generator, device=device, dtype=dtype)
    seed, end = draws.next_seed(), draws.first + num
    numbers = range(draws.first // BLOCK, -(-end // BLOCK))
    own = torch.Generator(device or "cpu")
    blocks = []
    for number in numbers:
        # The last block of a batch is as long as the batch is, however the batch is divided.
        length = min(BLOCK, max(draws.total, end) - number * BLOCK)
        own.manual_seed(mix(seed, number))
        blocks.append(function((length, *sizes), generator=own, device=device, dtype=dtype))
    offset = draws.first - numbers.start * BLOCK
    return torch.cat(blocks)[offset : offset + num]

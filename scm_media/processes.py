"""Work that several processes share, as ``torchrun`` starts them: each takes its part and writes files."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass

POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Share:
    """The part of a process in the work of ``world`` processes.

    rank: the process's number in them, from 0. local_rank: its number on its machine, and that of its GPU.
    """

    rank: int = 0
    world: int = 1
    local_rank: int = 0

    def part(self, num: int) -> range:
        """Returns this process's numbers of 0 … num − 1, which follow one another."""
        return range(num * self.rank // self.world, num * (self.rank + 1) // self.world)

    def takes(self, number: int) -> bool:
        """Returns whether this process makes the piece with a number."""
        return number % self.world == self.rank

    def device(self, name: str) -> str:
        """Returns this process's device: of ``auto`` and ``cuda`` the GPU with its number, where it is one of several.

        A machine without a GPU gives ``auto`` the CPU.
        """
        if self.world == 1 or name not in ("auto", "cuda"):
            return name
        import torch

        return f"cuda:{self.local_rank}" if name == "cuda" or torch.cuda.is_available() else name


def own_share() -> Share:
    """Returns the share that ``torchrun`` gave this process by RANK, WORLD_SIZE and LOCAL_RANK; all of it by default.

    Without torchrun (TORCHELASTIC_RUN_ID) these variables mean nothing: job scripts set some of them for other
    programs, and a process on its own would leave a part of the work undone. Raises ValueError for values that are no
    ranks.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return Share()
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    given = [os.environ.get(name, default) for name, default in zip(names, ("0", "1", "0"), strict=True)]
    if not all(each.isdecimal() for each in given) or not int(given[0]) < int(given[1]):
        told = ", ".join(f"{name}={value!r}" for name, value in zip(names, given, strict=True))
        raise ValueError(f"{told} must be whole numbers, RANK below WORLD_SIZE: start by torchrun, or unset them")
    return Share(*map(int, given))


def wait_until(done: Callable[[], bool]) -> None:
    """Waits until other processes have done something; ``torchrun`` ends all of them where one of them fails."""
    while not done():
        time.sleep(POLL_SECONDS)

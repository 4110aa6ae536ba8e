"""A call on the first device succeeds or fails for all of them."""

from __future__ import annotations

import pytest

from scm_media.training.devices import rank_zero_only


class Device:
    """One of two devices; ``said`` is what the first one told all."""

    def __init__(self, rank: int, said: str | None = None) -> None:
        self.global_rank, self.said = rank, said

    def broadcast(self, reason):
        if self.global_rank == 0:
            self.said = reason
        return self.said


def test_only_the_first_acts():
    acted = []
    first = Device(0)
    rank_zero_only(first, lambda: acted.append(0))
    rank_zero_only(Device(1, first.said), lambda: acted.append(1))
    assert acted == [0]


def test_an_error_of_the_first_is_broadcast_before_it_is_raised():
    def full():
        raise OSError(28, "No space left")

    first = Device(0)
    with pytest.raises(OSError, match="No space left"):
        rank_zero_only(first, full)
    with pytest.raises(RuntimeError, match=r"the first device stopped \(OSError: .*No space left\)"):
        rank_zero_only(Device(1, first.said), full)

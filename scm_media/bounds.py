"""Ranges that numbers of users have to lie in: settings of recipes, flags of commands, arguments of functions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

MAX_SEED = 2**63 - 1
"""Seeds go into generators of 64 bits and are counted up from there; a larger or negative one is another's alias."""

MANY = 10**9
"""More steps, examples or clips than anybody asks for on purpose."""


@dataclass(frozen=True)
class Bounds:
    """Numbers from ``low`` to ``high``; open_low, open_high: without the end itself. whole: whole numbers alone."""

    low: float = -math.inf
    high: float = math.inf
    whole: bool = False
    open_low: bool = False
    open_high: bool = False

    def complaint(self, value: Any) -> str | None:
        """Returns what a value has to be, as errors say it after "must be", where it is something else."""
        kind = "a whole number" if self.whole else "a number"
        ends = [*self._end("above" if self.open_low else "at least", self.low)]
        ends += self._end("below" if self.open_high else "at most", self.high)
        if isinstance(value, bool) or not isinstance(value, int if self.whole else int | float):
            return " ".join([kind, " and ".join(ends)]).strip()
        if isinstance(value, float) and not math.isfinite(value):
            return f"finite, {' and '.join(ends)}".removesuffix(", ")
        if (
            math.isinf(self.high) and isinstance(value, int) and abs(value) > MAX_SEED
        ):  # no float comes near, and none at all beyond 10^308
            return f"within ±{MAX_SEED}"
        if value < self.low or (self.open_low and value == self.low):
            return ends[0]
        return ends[-1] if value > self.high or (self.open_high and value == self.high) else None

    @staticmethod
    def _end(word: str, bound: float) -> list[str]:
        if math.isinf(bound):
            return []
        return [f"{word} {bound if isinstance(bound, int) else f'{bound:.4g}'}"]


SEED = Bounds(0, MAX_SEED, whole=True)
COUNT = Bounds(1, MANY, whole=True)
NUMBER_OF_STEPS = Bounds(0, MANY, whole=True)
SAMPLING_STEPS = Bounds(1, 10_000, whole=True)
SIGMA_MAX = Bounds(0, 1e6, open_low=True)
SECOND_TIME = Bounds(0, math.pi / 2, open_low=True, open_high=True)
LAYERS = Bounds(1, 1 << 20, whole=True)
POSITIVE = Bounds(0, open_low=True)
NOT_NEGATIVE = Bounds(0)
FRACTION = Bounds(0, 1)
BELOW_ONE = Bounds(0, 1, open_high=True)

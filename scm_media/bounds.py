"""Ranges and units of numbers that users give: settings of recipes, flags of commands, arguments of functions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

MAX_SEED = 2**63 - 1
"""The largest seed: generators take 64 bits, so that a larger or negative seed would repeat the noise of another."""

MANY = 10**9
"""A bound on steps, examples and samples that no real use reaches."""


@dataclass(frozen=True)
class Bounds:
    """Numbers from ``low`` to ``high`` in a unit.

    open_low, open_high: the end itself is excluded. whole: only whole numbers. unit: what the number counts.
    """

    low: float = -math.inf
    high: float = math.inf
    whole: bool = False
    open_low: bool = False
    open_high: bool = False
    unit: str = ""

    def complaint(self, value: Any) -> str | None:
        """Returns what a value has to be, as errors say it after "must be"; None for a value within the bounds."""
        kind = "a whole number" if self.whole else "a number"
        if isinstance(value, bool) or not isinstance(value, int if self.whole else int | float):
            return f"{kind} {self.in_words()}".strip()
        if isinstance(value, float) and not math.isfinite(value):
            return f"finite, {self.in_words()}".removesuffix(", ")
        if math.isinf(self.high) and isinstance(value, int) and abs(value) > MAX_SEED:
            return f"within ±{MAX_SEED}"  # no float comes near it, and none at all beyond 10^308
        if value < self.low or (self.open_low and value == self.low):
            return self._low_in_words()
        return self._high_in_words() if value > self.high or (self.open_high and value == self.high) else None

    def problem(self, value: Any, key: str) -> str | None:
        """Returns, in a sentence, what is wrong with the first number of a value that lies outside; None if none does.

        The value is a number, or a list or mapping of numbers; texts, null, true and false are left alone.
        """
        if isinstance(value, Mapping | list | tuple):
            inner = value.values() if isinstance(value, Mapping) else value
            return next((found for each in inner if (found := self.problem(each, key)) is not None), None)
        if value is None or isinstance(value, str | bool):
            return None
        expected = self.complaint(value)
        if expected is None:
            return None
        text = str(value)
        return f"{key} must be {expected}, got {text if len(text) < 40 else text[:30] + '…'}"

    def in_words(self) -> str:
        """Returns the range in words, as in "at least 0 and below 1"; empty where every number is allowed."""
        return " and ".join(word for word in (self._low_in_words(), self._high_in_words()) if word)

    def _low_in_words(self) -> str:
        return "" if math.isinf(self.low) else f"{'above' if self.open_low else 'at least'} {_format_bound(self.low)}"

    def _high_in_words(self) -> str:
        return "" if math.isinf(self.high) else f"{'below' if self.open_high else 'at most'} {_format_bound(self.high)}"


def _format_bound(bound: float) -> str:
    return str(bound) if isinstance(bound, int) else f"{bound:.4g}"


SEED = Bounds(0, MAX_SEED, whole=True)
COUNT = Bounds(1, MANY, whole=True)
NUMBER_OF_STEPS = Bounds(0, MANY, whole=True, unit="steps")
EVERY = replace(COUNT, unit="steps")
SAMPLES = replace(COUNT, unit="samples")
SAMPLING_STEPS = Bounds(1, 10_000, whole=True, unit="steps")
SIGMA_MAX = Bounds(0, 1e6, open_low=True)
TIME = Bounds(0, math.pi / 2, unit="rad")
SECOND_TIME = replace(TIME, open_low=True, open_high=True)
LAYERS = Bounds(1, 1 << 20, whole=True)
POSITIVE = Bounds(0, open_low=True)
NOT_NEGATIVE = Bounds(0)
FRACTION = Bounds(0, 1)
BELOW_ONE = Bounds(0, 1, open_high=True)

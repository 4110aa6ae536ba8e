"""The quality that a teacher must have before a student's ratio over it says anything."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MIN_ACCURACY = 0.85
MAX_OVER_HELD_OUT = 10.0
MIN_SAMPLES = 10_000


def teacher_threshold(
    teacher: Mapping[str, Any] | None, held_out_distance: float | None, num_samples: int
) -> dict[str, Any]:
    """Returns whether a teacher passes: accuracy ≥ 0.85 and Fréchet ≤ 10 × the held-out distance, at n ≥ 10,000.

    A bad teacher is easily matched, so that a student's ratio over it proves nothing. ``passed`` is None without a
    teacher or a held-out distance, and for fewer samples (the held-out distance of few samples is mostly their bias).
    A model without class labels is judged by the distance alone.
    """
    if teacher is None or not held_out_distance:
        return {"passed": None, "accuracy": None, "frechet_over_held_out": None}
    ratio, accuracy = teacher["frechet"] / held_out_distance, teacher["accuracy"]
    passed = ratio <= MAX_OVER_HELD_OUT and (accuracy is None or accuracy >= MIN_ACCURACY)
    enough = num_samples >= MIN_SAMPLES
    return {"passed": passed if enough else None, "accuracy": accuracy, "frechet_over_held_out": ratio}

"""What a teacher must reach before a ratio over it is worth reading."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MIN_ACCURACY = 0.85
MAX_OVER_HELD_OUT = 10.0
MIN_SAMPLES = 10_000


def teacher_threshold(
    teacher: Mapping[str, Any] | None, held_out_distance: float | None, num_samples: int
) -> dict[str, Any]:
    """Whether a teacher is past its gate: agreement ≥ 0.85, Fréchet ≤ 10 × the floor, both at n ≥ 10,000.

    A bad teacher is easily matched, so a student's ratio over it proves nothing. ``passed`` is None where it cannot be
    judged: without a teacher or a floor, or with fewer samples (a floor of few samples is mostly their own bias).
    A model without class labels is judged by distance alone.
    """
    if teacher is None or not held_out_distance:
        return {"passed": None, "accuracy": None, "frechet_over_held_out": None}
    over_floor, accuracy = teacher["frechet"] / held_out_distance, teacher["accuracy"]
    passed = over_floor <= MAX_OVER_HELD_OUT and (accuracy is None or accuracy >= MIN_ACCURACY)
    judged = num_samples >= MIN_SAMPLES
    return {"passed": passed if judged else None, "accuracy": accuracy, "frechet_over_held_out": over_floor}

"""The learning rate over a training."""

from __future__ import annotations

import math


def rate_factor(step: int, max_steps: int, warmup_steps: int, decay: str, decay_steps: int | None) -> float:
    """What the peak rate is multiplied by at a step, counted from 0: a linear warm-up, then a decay.

    constant; cosine: down to 0 at ``max_steps``; inverse_sqrt: 1 until ``decay_steps``, then sqrt(decay_steps / step)
    (EDM2, equation 67).
    """
    warm = min(1.0, (step + 1) / warmup_steps) if warmup_steps else 1.0
    if decay == "constant":
        return warm
    if decay == "cosine":
        done = max(0.0, (step - warmup_steps) / max(1, max_steps - warmup_steps))
        return warm * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
    if decay == "inverse_sqrt":
        if not decay_steps:
            raise ValueError("decay_steps must be given for decay 'inverse_sqrt'")
        return warm * min(1.0, math.sqrt(decay_steps / max(1, step)))
    raise ValueError(f"decay must be constant, cosine or inverse_sqrt, got {decay!r}")

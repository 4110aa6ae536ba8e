"""Early stopping: which validation of a stage was best, and when the stage ends because none has been better since."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from scm_media.ema import PowerEMA
from scm_media.training.sharding import shard_like

LOSS = "held_out/loss"
"""The figure of a validation that decides."""
LAST_STEP, NUM_WORSE = "last_step", "num_worse"
"""Keys in a weight file's header: the step that training reached, and the validations since that of the weights."""


class EarlyStopping:
    """Keeps the averaged weights of the validation with the lowest held-out loss, and counts the validations since.

    patience: validations in a row without a lower loss after which the stage has ended. ``step`` and ``loss`` are those
    of the best validation; ``weights`` are None before the first one with a finite loss.
    """

    def __init__(self, patience: int) -> None:
        self.patience = patience
        self.loss, self.step, self.num_worse = math.inf, 0, 0
        self.weights: dict[str, Tensor] | None = None

    @property
    def ended(self) -> bool:
        """Returns whether the last ``patience`` validations were all worse than the best."""
        return self.num_worse >= self.patience

    def update(self, fabric: Any, step: int, figures: Mapping[str, float] | None, ema: PowerEMA) -> bool:
        """Takes in a validation of the averages at a step and returns, on all devices alike, whether the stage ends.

        figures: those of the validation, None on devices that did not validate. A loss that is not finite counts as
        worse.
        """
        if figures is not None and figures[LOSS] < self.loss:
            self.loss, self.step, self.num_worse = figures[LOSS], step, 0
            self.weights = {name: value.clone() for name, value in ema.averaged.items()}
        else:
            self.num_worse += 1
        self.num_worse = fabric.broadcast(self.num_worse)
        return self.ended

    def state_dict(self, ema: PowerEMA) -> dict[str, Any]:
        """Returns the state for a checkpoint, without the weights where they are the present averages."""
        weights = None if self.step == ema.step else self.weights
        return {"loss": self.loss, "step": self.step, "num_worse": self.num_worse, "weights": weights}

    def load_state_dict(self, state: Mapping[str, Any], ema: PowerEMA) -> None:
        """Restores a saved state; ema: the averages of the same checkpoint."""
        self.loss, self.step, self.num_worse = state["loss"], state["step"], state["num_worse"]
        if math.isfinite(self.loss):
            saved = ema.averaged if state["weights"] is None else state["weights"]
            saved = shard_like(saved, ema.averaged)
            places = {name: (value.device, value.dtype) for name, value in ema.averaged.items()}
            self.weights = {name: saved[name].to(*place, copy=True) for name, place in places.items()}

    def summary(self, last_step: int) -> str:
        """Returns in words what the stage kept."""
        if self.weights is None:
            return f"no held-out loss was finite; the averaged weights of step {last_step} are kept"
        kept = f"kept the averaged weights of step {self.step}, held-out loss {self.loss:.4g}"
        if not self.ended:
            return kept
        return f"stopped at step {last_step}, after {self.num_worse} validations without a lower held-out loss; {kept}"

    def header(self, last_step: int) -> dict[str, int]:
        """Returns the entries of the weight file's header by which ``has_ended`` knows the end of a training."""
        return {LAST_STEP: last_step, NUM_WORSE: self.num_worse}


def has_ended(info: Mapping[str, Any], settings: Mapping[str, Any]) -> bool:
    """Returns whether weights with this header are of a stage that has no step left, or was stopped early.

    settings: the stage's section of the recipe, whose ``max_steps`` and ``patience`` may have changed since.
    """
    patience = settings.get("patience")
    stopped = patience is not None and info.get(NUM_WORSE, 0) >= patience
    return stopped or reached_step(info) >= settings["max_steps"]


def reached_step(info: Mapping[str, Any]) -> int:
    """Returns the step that the training of weights with this header reached; theirs may be an earlier one."""
    step: int = info.get(LAST_STEP, info.get("step", 0))
    return step

"""The learned weighting of noise levels."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from scm_media.nn.embedding import SinusoidalFeatures


class LearnedWeight(nn.Module):
    """Computes w(t), which starts at 0 and is clamped to [−5, 5] (EDM2, section 2.3: the uncertainty of the loss)."""

    def __init__(self, num_frequencies: int = 32, bound: float = 5.0) -> None:
        super().__init__()
        self.features = SinusoidalFeatures(num_frequencies)
        self.linear = nn.Linear(2 * num_frequencies, 1)
        self.bound = bound
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, t: Tensor) -> Tensor:
        """Returns w ``(B,)`` for times t ``(B,)``."""
        with torch.autocast(t.device.type, enabled=False):
            return self.linear(self.features(t)).squeeze(-1).clamp(-self.bound, self.bound)

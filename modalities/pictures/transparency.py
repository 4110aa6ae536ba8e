"""This module finds the background on which pictures with transparent pixels are seen."""

from __future__ import annotations

import numpy as np

LEVELS = BLACK, WHITE = -1.0, 1.0
"""These backgrounds are tried."""
OPAQUE = 0.5
"""A pixel counts as drawn where it covers at least this part of the background."""
FAINTEST = 0.1
"""Drawn pixels differ from the background by at least this, as a root mean square in [0, 2], or nothing is seen."""


class Backgrounds:
    """This counts the pictures that are partly transparent, and those of which nothing is seen on each background."""

    def __init__(self) -> None:
        self.num_transparent = 0
        self.lost = {BLACK: 0, WHITE: 0}

    def add(self, on_black: np.ndarray, on_white: np.ndarray) -> None:
        """Adds a picture ``(C, ...)`` in [-1, 1], as it is seen on both backgrounds."""
        cover = 1 - (on_white - on_black).mean(0) / 2
        drawn = cover >= OPAQUE
        if drawn.all():
            return
        self.num_transparent += 1
        for background, shown in ((BLACK, on_black), (WHITE, on_white)):
            contrast = np.sqrt(np.square(shown[:, drawn] - background).mean()) if drawn.any() else 0.0
            self.lost[background] += bool(contrast < FAINTEST)

    def keys(self) -> dict[str, float]:
        """Returns the key ``background`` of a recipe: white where no more is lost than on black, which needs none."""
        return {"background": WHITE} if self.num_transparent and self.lost[WHITE] <= self.lost[BLACK] else {}

    def describe(self) -> str:
        """Returns a clause about the transparent pictures; empty where there are none."""
        if not self.num_transparent:
            return ""
        shown = "white" if self.keys() else "black"
        return f"; {self.num_transparent} are partly transparent, and shown on {shown} (modality.background)"

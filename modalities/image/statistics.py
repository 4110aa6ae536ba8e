"""Figures of single pictures that Fréchet distances do not show: how bright, rich in contrast and sharp they are."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from modalities.pictures.pixels import to_grey

STATISTIC_UNITS = {"brightness": "levels of 255", "contrast": "levels of 255", "sharpness": "levels of 255 a pixel"}


def picture_statistics(pictures: Tensor) -> Mapping[str, Tensor]:
    """Returns the figures of ``STATISTIC_UNITS``, each ``(B,)``, of pictures ``(B, C, H, W)`` in [-1, 1].

    brightness: the mean of the pixels' brightness Y. contrast: its standard deviation. sharpness: the mean length of
    its gradient, by differences to the next pixel along x and y; NaN for pictures of one row or column.
    """
    levels = (to_grey(pictures.float()) + 1) * 127.5
    across, down = levels.diff(dim=2)[:, :-1], levels.diff(dim=1)[:, :, :-1]
    return {
        "brightness": levels.mean((1, 2)),
        "contrast": levels.flatten(1).std(1, correction=0),
        "sharpness": (across.square() + down.square()).sqrt().mean((1, 2)),
    }

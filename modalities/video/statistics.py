"""Figures of single clips that Fréchet distances do not show: how much moves, stands still and flickers."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from modalities.pictures.pixels import to_grey
from modalities.video.flow import optical_flow

STATISTIC_UNITS = {"motion": "pixels a frame", "still": "fraction of frames", "flicker": "levels of 255"}
STILL = 0.1
"""Pixels of mean motion below which a frame counts as still: noise of 1 % of the range moves a still by half of it."""
PAIRS = 64
"""Pairs of frames whose flow is computed at once."""
LEAST_CERTAINTY = 0.01
"""The mean certainty of a pair of frames, at least: frames that are flat, but for noise, count as still."""


def clip_statistics(clips: Tensor) -> Mapping[str, Tensor]:
    """Returns the figures of ``STATISTIC_UNITS``, each ``(B,)``, of clips ``(B, C, T, H, W)`` in [-1, 1].

    motion: the mean magnitude of the optical flow (``flow.optical_flow`` of brightness less its mean over the frame)
    from each frame to the next, weighted by how well a pixel's motion can be told. still: the fraction of frames that
    move by less than ``STILL`` pixels against the frame before. flicker: the mean magnitude of the second difference in
    time of a frame's mean brightness. NaN for clips of one frame, and for flicker of two.
    """
    grey = to_grey(clips.float())
    mean = grey.mean((2, 3))
    frames = grey - mean[..., None, None]
    firsts, seconds = (part.flatten(0, 1).split(PAIRS) for part in (frames[:, :-1], frames[:, 1:]))
    found = [_motion(*pictures) for pictures in zip(firsts, seconds, strict=True)]
    moved, told = torch.cat(found, 1).reshape(2, len(grey), grey.shape[1] - 1)
    return {
        "motion": moved.sum(1) / told.sum(1),
        "still": (moved < STILL * told).float().mean(1),
        "flicker": mean.diff(n=2, dim=1).abs().mean(1) * 127.5,
    }


def _motion(first: Tensor, second: Tensor) -> Tensor:
    """Returns of pairs of frames ``(N, H, W)`` the means of certainty times motion and of certainty, ``(2, N)``."""
    flow, certainty = optical_flow(first, second)
    moved = (certainty * flow.square().sum(1).sqrt()).mean((1, 2))
    return torch.stack([moved, certainty.mean((1, 2)).clamp(min=LEAST_CERTAINTY)])

"""Dense optical flow between pictures, by Lucas and Kanade's least squares from coarse to fine."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

WINDOW_STD = 2.5
"""Pixels of the standard deviation of the Gaussian window over which a pixel's motion is fitted."""
SMALLEST_SIDE = 12
"""Pixels below which no side of a coarser picture is."""
ITERATIONS = 3
"""Fits at each size of the pictures."""
NOISE = 5e-4
"""The squared slope of brightness, which has a range from -1 to 1, that is taken for noise."""


def optical_flow(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the motion ``(B, 2, H, W)`` of each pixel from first to second pictures, and where it can be told.

    first, second: brightness ``(B, H, W)`` in [-1, 1]. The motion is along x and y in pixels: what is at p in the first
    picture is at p + v in the second. The second tensor, ``(B, H, W)`` in [0, 1], is near 1 where the picture has
    structure in all directions, and near 0 where it is flat or has edges of one direction alone (the aperture
    problem), and 0 where it leaves the frame.

    v minimises Σ (∇I·(v − v₀) + J(p + v₀) − I(p))² + ν |v − v₀|² over a window, ν being ``NOISE`` (Lucas & Kanade 1981,
    "An iterative image registration technique with an application to stereo vision", section 4; ∇I is the mean of both
    pictures' slopes). v₀ comes from pictures of half the size (Bouguet 2001, "Pyramidal implementation of the affine
    Lucas Kanade feature tracker", section 2), and each pixel of the window has its own (Le Besnerais & Champagnat 2005,
    "Dense optical flow by iterative local window registration", doi:10.1109/ICIP.2005.1529706).
    Motion of more than about a tenth of the frame's side is underestimated where all structure is fine.
    """
    pyramid = [(first[:, None].float(), second[:, None].float())]
    while min(pyramid[-1][0].shape[-2:]) >= 2 * SMALLEST_SIDE:
        pyramid.append((_halve(pyramid[-1][0]), _halve(pyramid[-1][1])))
    flow = torch.zeros_like(pyramid[-1][0]).repeat(1, 2, 1, 1)
    for size, (source, target) in enumerate(reversed(pyramid)):
        if size:
            flow = 2 * functional.interpolate(flow, source.shape[-2:], mode="bilinear")
        flow, certainty = _fit(source, target, flow)
    return flow, certainty


def _fit(source: Tensor, target: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
    """Returns a better flow ``(B, 2, H, W)`` between pictures ``(B, 1, H, W)``, and its certainty ``(B, H, W)``."""
    across, down = (_window(side, source.device) for side in (source.shape[-1], source.shape[-2]))
    for _ in range(ITERATIONS):
        moved, inside = _warp(target, flow)
        slope = _slope((source + moved) / 2) * inside
        error = (slope * flow).sum(1, keepdim=True) - (moved - source)
        x, y = slope[:, :1], slope[:, 1:]
        products = torch.cat([x * x, y * y, x * y, x * error, y * error], 1)
        xx, yy, xy, x_error, y_error = (down @ products @ across).unbind(1)
        x_error, y_error = x_error + NOISE * flow[:, 0], y_error + NOISE * flow[:, 1]
        steep, flat = xx + NOISE, yy + NOISE
        found = torch.stack([flat * x_error - xy * y_error, steep * y_error - xy * x_error], 1)
        flow = found / (steep * flat - xy * xy)[:, None]
    weakest = (xx + yy) / 2 - (((xx - yy) / 2).square() + xy.square()).sqrt()
    return flow, weakest / (weakest + NOISE) * _warp(target, flow)[1][:, 0]


def _warp(picture: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
    """Returns pictures ``(B, 1, H, W)`` read at p + v, and one where that lies within the frame, else zero."""
    height, width = picture.shape[-2:]
    x = torch.arange(width, device=flow.device) + flow[:, 0]
    y = torch.arange(height, device=flow.device)[:, None] + flow[:, 1]
    x, y = 2 * x / max(width - 1, 1) - 1, 2 * y / max(height - 1, 1) - 1
    inside = ((x.abs() <= 1) & (y.abs() <= 1)).float()
    grid = torch.stack([x, y], -1)
    return functional.grid_sample(picture, grid, padding_mode="border", align_corners=True), inside[:, None]


def _slope(picture: Tensor) -> Tensor:
    """Returns the central differences ``(B, 2, H, W)`` of pictures ``(B, 1, H, W)`` along x and y."""
    wide = functional.pad(picture, (1, 1, 1, 1), mode="replicate")
    along_x = wide[..., 1:-1, 2:] - wide[..., 1:-1, :-2]
    along_y = wide[..., 2:, 1:-1] - wide[..., :-2, 1:-1]
    return torch.cat([along_x, along_y], 1) / 2


def _halve(picture: Tensor) -> Tensor:
    """Returns pictures ``(B, 1, H, W)`` of half the size, smoothed by (1, 3, 3, 1) / 8 first."""
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0], device=picture.device) / 8
    height, width = picture.shape[-2:]
    wide = functional.pad(picture[..., : height // 2 * 2, : width // 2 * 2], (1, 1, 1, 1), mode="replicate")
    return functional.conv2d(wide, torch.outer(taps, taps)[None, None], stride=2)


def _window(side: int, device: torch.device) -> Tensor:
    """Returns the matrix ``(side, side)`` that takes a Gaussian mean around each place; it is symmetric."""
    place = torch.arange(side, device=device, dtype=torch.float32)
    weights = torch.exp(-((place[:, None] - place) / WINDOW_STD).square() / 2)
    return weights / weights[side // 2].sum()

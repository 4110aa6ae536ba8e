"""Synthetic pictures of shapes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from scm_media.data.synthetic import SyntheticDataset
from scm_media.parts import part

SHAPE_CLASSES = ("circle", "square", "triangle", "cross")


def distance_outside(x: Tensor, y: Tensor, radius: Tensor) -> Tensor:
    """Returns how far each point (x, y) ``(B, H, W)`` lies outside each shape, ``(B, 4, H, W)``; negative inside."""
    circle = torch.hypot(x, y) - radius
    square = torch.maximum(x.abs(), y.abs()) - 0.8 * radius
    sides = [x * math.cos(angle) + y * math.sin(angle) for angle in (math.pi / 2, math.pi * 7 / 6, math.pi * 11 / 6)]
    triangle = torch.stack(sides).amax(0) - 0.5 * radius
    lying = torch.maximum(x.abs() - radius, y.abs() - 0.3 * radius)
    standing = torch.maximum(x.abs() - 0.3 * radius, y.abs() - radius)
    return torch.stack([circle, square, triangle, torch.minimum(lying, standing)], dim=1)


@part("data")
class ShapesDataset(SyntheticDataset):
    """Pictures of one shape each on black, rotated, of any size, position and colour; label "class"."""

    noun, axes, kind = "shape", "C, H, W", "pictures"
    label_names = {"class": SHAPE_CLASSES}

    def draw(self, generators: Sequence[torch.Generator], labels: Mapping[str, Tensor]) -> Tensor:
        num_channels, height, width = self.shape
        uniform = torch.stack([torch.rand(4 + num_channels, generator=generator) for generator in generators])
        radius, across, down, turn = (uniform[:, column, None, None] for column in range(4))
        radius = 0.35 + 0.35 * radius
        x = torch.linspace(-1, 1, width) - (across - 0.5) * 2 * (0.95 - radius)
        y = torch.linspace(-1, 1, height)[:, None] - (down - 0.5) * 2 * (0.95 - radius)
        cos, sin = torch.cos(turn * 2 * math.pi), torch.sin(turn * 2 * math.pi)
        distances = distance_outside(x * cos + y * sin, y * cos - x * sin, radius)
        distance = distances[torch.arange(len(distances)), labels["class"]]
        coverage = (0.5 - distance * max(height, width) / 2).clamp(0, 1)
        brightness = 0.4 + 0.6 * uniform[:, 4:, None, None]
        return coverage[:, None] * brightness * 2 - 1

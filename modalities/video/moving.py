"""Synthetic clips of moving shapes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from scm_media.data.shapes import SHAPE_CLASSES, distance_outside
from scm_media.data.synthetic import SyntheticDataset
from scm_media.parts import part

DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
"""The motion of each class: steps along x and y, which grows downwards."""


@part("data")
class MovingShapesDataset(SyntheticDataset):
    """Clips of one shape each that crosses a black picture evenly; labels "shape" and "motion".

    Size, colour, speed, rotation and position are drawn. No single frame shows which way the shape goes.
    """

    noun, axes, kind = "moving shape", "C, T, H, W", "videos"
    label_names = {"shape": SHAPE_CLASSES, "motion": tuple(DIRECTIONS)}

    def draw(self, generators: Sequence[torch.Generator], labels: Mapping[str, Tensor]) -> Tensor:
        shapes, motions = labels["shape"], labels["motion"]
        num_channels, length, height, width = self.shape
        uniform = torch.stack([torch.rand(5 + num_channels, generator=generator) for generator in generators])
        radius, speed, along, across, turn = (uniform[:, column, None, None, None] for column in range(5))
        radius = 0.3 + 0.2 * radius
        room = 0.95 - radius
        way = torch.tensor(list(DIRECTIONS.values()), dtype=torch.float32)[motions]
        # From one half of the picture to the other: how far, and from where, is drawn within what keeps it inside.
        travel = (0.5 + 0.5 * speed) * 2 * room
        start = -room + along * (2 * room - travel)
        progress = start + travel * torch.linspace(0, 1, length)[:, None, None]
        aside = (across - 0.5) * 2 * room
        way_x, way_y = (way[:, axis, None, None, None] for axis in range(2))
        x = torch.linspace(-1, 1, width) - (way_x * progress + way_y.abs() * aside)
        y = torch.linspace(-1, 1, height)[:, None] - (way_y * progress + way_x.abs() * aside)
        x, y = torch.broadcast_tensors(x, y)
        cos, sin = torch.cos(turn * 2 * math.pi), torch.sin(turn * 2 * math.pi)
        turned = ((x * cos + y * sin).flatten(0, 1), (y * cos - x * sin).flatten(0, 1))
        distances = distance_outside(*turned, radius.expand(-1, length, 1, 1).flatten(0, 1))
        chosen = distances[torch.arange(len(distances)), shapes.repeat_interleave(length)]
        distance = chosen.unflatten(0, (len(generators), length))
        coverage = (0.5 - distance * max(height, width) / 2).clamp(0, 1)
        brightness = 0.4 + 0.6 * uniform[:, 5:, None, None, None]
        return coverage[:, None] * brightness * 2 - 1

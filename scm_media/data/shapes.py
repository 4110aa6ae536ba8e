"""Synthetic pictures made on the fly: data that needs no download, for tests and first runs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from scm_media.data.examples import Batch, Example, check_split, transform_batch
from scm_media.data.order import mix
from scm_media.interfaces import Modality
from scm_media.parts import part

SHAPE_CLASSES = ("circle", "square", "triangle", "cross")


def distance_outside(x: Tensor, y: Tensor, radius: Tensor) -> Tensor:
    """How far each place (x, y) ``(B, H, W)`` lies outside each shape, ``(B, 4, H, W)``; negative inside."""
    circle = torch.hypot(x, y) - radius
    square = torch.maximum(x.abs(), y.abs()) - 0.8 * radius
    sides = [x * math.cos(angle) + y * math.sin(angle) for angle in (math.pi / 2, math.pi * 7 / 6, math.pi * 11 / 6)]
    triangle = torch.stack(sides).amax(0) - 0.5 * radius
    lying = torch.maximum(x.abs() - radius, y.abs() - 0.3 * radius)
    standing = torch.maximum(x.abs() - 0.3 * radius, y.abs() - radius)
    return torch.stack([circle, square, triangle, torch.minimum(lying, standing)], dim=1)


@part("data")
class ShapesDataset:
    """``num`` pictures of one shape each on black, turned, of any size, place and colour; label "class".

    A picture is a pure function of (seed, split, index), the classes take turns. Pictures alone: a modality whose
    shape is not ``(C, H, W)`` is refused, and so is a root, since no file is read.
    """

    def __init__(
        self,
        modality: Modality,
        num: int = 4096,
        seed: int = 0,
        split: str = "train",
        held_out: float = 0.02,
        root: str | None = None,
    ) -> None:
        check_split(split)
        self.modality = modality
        self.shape = modality.shape()
        if len(self.shape) != 3:
            raise ValueError(f"shapes are pictures (C, H, W), the modality {modality.name} asks for {self.shape}")
        if root is not None:
            raise ValueError(f"data.root={root} is read by no one: shapes are made on the fly; choose data=folder")
        self._num = num if split == "train" else max(1, round(num * held_out))
        if self._num < 1:
            raise ValueError(f"data.num must be at least 1, got {num}")
        self._seed = mix(seed, 0 if split == "train" else 1)
        classes = range(len(SHAPE_CLASSES))
        self.label_names = {"class": SHAPE_CLASSES}
        self.label_counts = {"class": tuple(len(range(number, self._num, len(classes))) for number in classes)}
        self.rejects: dict[str, int] = {}
        self.rejected: list[tuple[str, str]] = []

    def __len__(self) -> int:
        return self._num

    def __getitem__(self, index: int) -> Example:
        batch = self.batch([index])
        return Example(batch.sample[0], {"class": int(batch.labels["class"][0])}, None, f"shape {index}")

    def batch(self, indices: Sequence[int], generators: Sequence[torch.Generator] | None = None) -> Batch:
        """The batch of these examples; ``generators``, one an example, make their augmentation."""
        for index in indices:
            if not 0 <= index < self._num:
                raise IndexError(f"example {index} of {self._num}")
        classes = torch.tensor([index % len(SHAPE_CLASSES) for index in indices])
        samples = self._draw(indices, classes)
        return Batch(transform_batch(self.modality, samples, generators), {"class": classes})

    def _draw(self, indices: Sequence[int], classes: Tensor) -> Tensor:
        num_channels, height, width = self.shape
        own = [torch.Generator().manual_seed(mix(self._seed, index)) for index in indices]
        uniform = torch.stack([torch.rand(4 + num_channels, generator=generator) for generator in own])
        radius, across, down, turn = (uniform[:, place, None, None] for place in range(4))
        radius = 0.35 + 0.35 * radius
        x = torch.linspace(-1, 1, width) - (across - 0.5) * 2 * (0.95 - radius)
        y = torch.linspace(-1, 1, height)[:, None] - (down - 0.5) * 2 * (0.95 - radius)
        cos, sin = torch.cos(turn * 2 * math.pi), torch.sin(turn * 2 * math.pi)
        distance = distance_outside(x * cos + y * sin, y * cos - x * sin, radius)[torch.arange(len(own)), classes]
        coverage = (0.5 - distance * max(height, width) / 2).clamp(0, 1)
        brightness = 0.4 + 0.6 * uniform[:, 4:, None, None]
        return coverage[:, None] * brightness * 2 - 1

    def fingerprint(self) -> str:
        """What tells these examples from others: number, seed of the split, shape."""
        return f"shapes-{self._num}-{self._seed}-{'x'.join(map(str, self.shape))}"

"""Synthetic clips of moving shapes, made on the fly: data that needs no download, for tests and first runs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from scm_media.data.examples import Batch, Example, check_split, count_classes, transform_batch
from scm_media.data.order import mix
from scm_media.data.shapes import SHAPE_CLASSES, distance_outside
from scm_media.interfaces import Modality
from scm_media.parts import part

DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
"""Where a shape goes: steps along x and y, which grows downwards."""


@part("data")
class MovingShapesDataset:
    """``num`` clips of one shape each that crosses a black picture evenly; labels "shape" and "motion".

    A clip is a pure function of (seed, split, index): shapes and directions take turns, size, colour, speed, turn and
    place are drawn. Which way it goes is seen in no single frame. Videos alone: a modality whose shape is not
    ``(C, T, H, W)`` is refused, and so is a root, since no file is read.
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
        if len(self.shape) != 4:
            raise ValueError(
                f"moving shapes are videos (C, T, H, W), the modality {modality.name} asks for {self.shape}"
            )
        if root is not None:
            raise ValueError(f"data.root={root} is read by no one: shapes are made on the fly; choose data=folder")
        if num < 1:
            raise ValueError(f"data.num must be at least 1, got {num}")
        self._num = num if split == "train" else max(1, round(num * held_out))
        self._seed = mix(seed, 0 if split == "train" else 1)
        self.label_names = {"shape": SHAPE_CLASSES, "motion": tuple(DIRECTIONS)}
        labels = self._labels(range(self._num))
        self.label_counts = {
            name: count_classes(labels[name], len(classes)) for name, classes in self.label_names.items()
        }
        self.rejects: dict[str, int] = {}
        self.rejected: list[tuple[str, str]] = []

    def __len__(self) -> int:
        return self._num

    def __getitem__(self, index: int) -> Example:
        batch = self.batch([index])
        labels = {name: int(label[0]) for name, label in batch.labels.items()}
        return Example(batch.sample[0], labels, None, f"moving shape {index}")

    def batch(self, indices: Sequence[int], generators: Sequence[torch.Generator] | None = None) -> Batch:
        """The batch of these examples; ``generators``, one an example, make their augmentation."""
        for index in indices:
            if not 0 <= index < self._num:
                raise IndexError(f"example {index} of {self._num}")
        labels = self._labels(indices)
        samples = self._draw(indices, labels["shape"], labels["motion"])
        return Batch(transform_batch(self.modality, samples, generators), labels)

    def _labels(self, indices: Sequence[int]) -> dict[str, Tensor]:
        places = torch.as_tensor(indices, dtype=torch.int64)
        # Every shape meets every direction: the direction moves on when the shapes have had their turn.
        return {"shape": places % len(SHAPE_CLASSES), "motion": places // len(SHAPE_CLASSES) % len(DIRECTIONS)}

    def _draw(self, indices: Sequence[int], shapes: Tensor, motions: Tensor) -> Tensor:
        num_channels, length, height, width = self.shape
        own = [torch.Generator().manual_seed(mix(self._seed, index)) for index in indices]
        uniform = torch.stack([torch.rand(5 + num_channels, generator=generator) for generator in own])
        radius, speed, along, across, turn = (uniform[:, place, None, None, None] for place in range(5))
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
        distance = chosen.unflatten(0, (len(own), length))
        coverage = (0.5 - distance * max(height, width) / 2).clamp(0, 1)
        brightness = 0.4 + 0.6 * uniform[:, 5:, None, None, None]
        return coverage[:, None] * brightness * 2 - 1

    def fingerprint(self) -> str:
        """What tells these examples from others: number, seed of the split, shape."""
        return f"moving-shapes-{self._num}-{self._seed}-{'x'.join(map(str, self.shape))}"

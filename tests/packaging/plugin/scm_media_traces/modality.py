"""Recordings of one channel: one number a line in a CSV file, comments on top."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw
from torch import Tensor, nn

from scm_media.modality import Modality, SizeOption
from scm_media.parts import part


@part("modality")
class TraceModality(Modality):
    """Recordings ``(1, T)`` of values in [-1, 1]."""

    name = "traces"
    suffixes = frozenset({".csv"})

    def __init__(self, length: int = 32) -> None:
        self.length = length
        self.size_options = {"length": SizeOption(length, "values", "how long a recording is")}

    def shape(self, length: float | None = None) -> tuple[int, ...]:
        return (1, int(length or self.length))

    def read(self, path: str | Path) -> Tensor:
        try:
            lines = Path(path).read_text().splitlines()
            values = [float(line) for line in lines if not line.startswith("#")]
        except (OSError, ValueError) as error:
            raise ValueError(f"{path}: expected a file with one number a line ({error})") from error
        return torch.tensor([values]).clamp(-1, 1)

    def transform(self, sample: Tensor, generator: torch.Generator | None = None) -> Tensor:
        missing = max(0, self.length - sample.shape[-1])
        return nn.functional.pad(sample, (0, missing))[..., : self.length]

    def write(self, path: str | Path, sample: Tensor, metadata: Mapping[str, Any]) -> None:
        lines = [f"# {key}: {json.dumps(value)}" for key, value in metadata.items()]
        lines += [f"{value:.6f}" for value in sample[0].tolist()]
        Path(path).write_text("\n".join(lines) + "\n")

    def preview(self, samples: Tensor, captions: Sequence[str] = (), columns: int | None = None) -> Image.Image:
        height, width = 24, samples.shape[-1] * 4
        picture = Image.new("L", (width, height * len(samples)), 255)
        draw = ImageDraw.Draw(picture)
        for row, sample in enumerate(samples):
            points = [(4 * i, height * (row + 0.5 - 0.4 * value)) for i, value in enumerate(sample[0].tolist())]
            draw.line(points, fill=0)
        return picture


@part("autoencoder")
class ScaledTraces(nn.Module):
    """Recordings scaled to the flow's deviation: the simplest autoencoder there is."""

    def __init__(self, sigma_data: float = 0.5) -> None:
        super().__init__()
        self.sigma_data = sigma_data
        self.register_buffer("std", torch.zeros(()))

    def fit(self, samples) -> None:
        self.std.copy_(torch.cat([batch.flatten() for batch in samples]).std())

    def encode(self, sample: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return sample * (self.sigma_data / self.std)

    def decode(self, latent: Tensor) -> Tensor:
        return (latent * (self.std / self.sigma_data)).clamp(-1, 1)

    def latent_shape(self, sample_shape: Sequence[int]) -> tuple[int, ...]:
        return tuple(sample_shape)

    def sample_shape(self, latent_shape: Sequence[int]) -> tuple[int, ...]:
        return tuple(latent_shape)

    def latent_mask(self, mask: Tensor) -> Tensor:
        return mask

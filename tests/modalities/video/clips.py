"""A modality of frames that are numbers in a file, and clips of a moving bar with pictures among them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from scm_media.data import Dataset, Example
from scm_media.modality import Modality, SizeOption
from scm_media.parts import part

FRAMES, SIZE = 7, 16


@part("modality")
class ClipModality(Modality):
    """Grey clips ``(1, T, 16, 16)``, of which seven frames are drawn at once."""

    name = "clips"
    suffixes = frozenset({".json"})
    channels = 1

    def __init__(self) -> None:
        help = "how long a clip is"
        self.size_options = {"frames": SizeOption(FRAMES, "frames", help, longest=FRAMES, axis=-3, rate=1.0)}

    def shape(self, **sizes: float) -> tuple[int, ...]:
        return (1, int(sizes.get("frames", FRAMES)), SIZE, SIZE)

    def read(self, path: Path) -> Tensor:
        return torch.tensor(json.loads(Path(path).read_text()))

    def transform(self, sample: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return sample[:, :FRAMES]

    def write(self, path: Path, sample: Tensor, metadata: Mapping[str, Any]) -> None:
        Path(path).write_text(json.dumps(sample.tolist()))

    def preview(self, samples: Tensor, captions: Sequence[str] = (), columns: int | None = None) -> Image.Image:
        return Image.new("L", (samples.shape[-1], len(samples)))


@part("data")
class MovingBars(Dataset):
    """Bright bars that move to the right by a class's speed; with ``pictures``, every other example is one frame."""

    label_quantiles = {"fps": (8.0, 24.0)}

    def __init__(self, modality: ClipModality, split: str = "train", num: int = 32, pictures: bool = False) -> None:
        self.num = num if split == "train" else num // 4
        self.pictures = pictures
        self.label_names: Mapping[str, tuple[str, ...]] = {"class": ("slow", "fast"), "fps": ()}
        self.label_counts = {"class": (self.num // 2, self.num // 2), "fps": ()}
        self.shape = modality.shape()
        self.buckets = torch.arange(self.num) % 2 if pictures else None

    def __len__(self) -> int:
        return self.num

    def fingerprint(self) -> str:
        return f"bars {self.num} {self.pictures}"

    def __getitem__(self, index: int) -> Example:
        place = torch.arange(SIZE).expand(1, FRAMES, SIZE, SIZE)
        speed = 1 + index // 2 % 2
        bar = (place - index - speed * torch.arange(FRAMES)[:, None, None]) % SIZE < 4
        sample = torch.where(bar, 0.8, -0.8)
        labels = {"class": speed - 1, "fps": 8.0 if index % 4 < 2 else 24.0}
        return Example(sample[:, :1] if self.pictures and index % 2 else sample, labels)

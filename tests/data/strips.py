"""A modality of two axes: strips (1, 6, 8), six places of eight numbers, in files of text."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from scm_media.modality import Modality, SizeOption
from scm_media.parts import part

PLACES, ACROSS = 6, 8


@part("modality")
class StripModality(Modality):
    """Strips ``(1, N, 8)``, of which six places are drawn at once."""

    name = "strips"
    suffixes = frozenset({".json"})

    def __init__(self) -> None:
        self.size_options = {"places": SizeOption(PLACES, "places", "how long a strip is", longest=PLACES, axis=-2)}

    def shape(self, **sizes: float) -> tuple[int, ...]:
        return (1, int(sizes.get("places", PLACES)), ACROSS)

    def check_actions(self) -> None:
        """A strip begins where its file does."""

    def read(self, path: Path) -> Tensor:
        return torch.tensor(json.loads(Path(path).read_text())["sample"])

    def transform(self, sample: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return sample[:, :PLACES]

    def write(self, path: Path, sample: Tensor, metadata: Mapping[str, Any]) -> None:
        Path(path).write_text(json.dumps({"sample": sample.tolist(), "metadata": dict(metadata)}))

    def preview(self, samples: Tensor, captions: Sequence[str] = (), columns: int | None = None) -> Image.Image:
        return Image.new("L", (samples.shape[-1], len(samples)))


def write_strips(folder: Path, num: int) -> list[str]:
    """Names of files, below the folder, each of whose numbers is a hundredth of the file's own."""
    names = [f"{number:02d}.json" for number in range(num)]
    for number, name in enumerate(names):
        StripModality().write(folder / name, torch.full((1, PLACES, ACROSS), number / 100), {})
    return names

"""The parts that fake models of benchmarks share."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor


class FakeModel:
    """A model of texts that remembers what it was asked for; its autoencoder loses nothing."""

    name, device, settings = "fake", torch.device("cpu"), {"steps": 2}

    def __init__(self, folder: Any, modality: Any, text: Any) -> None:
        self.folder, self.modality, self.text = folder, modality, text
        self.prompts: list[str] = []

    def network(self, name: str) -> Any:
        return SimpleNamespace(encode=lambda sample: sample / 2)

    def decode(self, latent: Tensor) -> Tensor:
        return 2 * latent

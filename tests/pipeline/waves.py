"""A modality of one axis that goes on, with a model of real networks, and Gaussian waves whose model is known."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from scm_media import weights
from scm_media.build import build
from scm_media.conditioning import Conditioning
from scm_media.modality import Modality, SizeOption
from scm_media.networks import ROLES
from scm_media.parts import part
from scm_media.pipeline import ModelDescription, SamplerSettings
from scm_media.pipeline.blending import crossfade

RATE = 16.0
WINDOW = 32
"""Places a second, and how many of them are drawn at once: two seconds."""


@part("modality")
class WaveModality(Modality):
    """Waves ``(1, T)`` of 16 places a second, of which two seconds are drawn at once; one number a line in a file."""

    name = "waves"
    suffixes = frozenset({".txt"})

    def __init__(self, longest: float | None = 2.0) -> None:
        self.size_options = {"duration": SizeOption(2.0, "s", "how long a wave is", longest, -1, RATE)}

    def shape(self, **sizes: float) -> tuple[int, ...]:
        if unknown := set(sizes) - {"duration"}:
            raise ValueError(f"waves have no {', '.join(unknown)}; they have: duration")
        duration = sizes.get("duration", 2.0)
        if not duration > 0:
            raise ValueError(f"duration must be above 0 s, got {duration}")
        return (1, 4 * round(duration * RATE / 4))

    def read(self, path: Path) -> Tensor:
        try:
            lines = [line for line in Path(path).read_text().splitlines() if not line.startswith("#")]
            return torch.tensor([[float(line) for line in lines]])
        except (OSError, ValueError) as error:
            raise ValueError(f"{path}: expected one number a line ({error})") from error

    def transform(self, sample: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return nn.functional.pad(sample, (0, max(0, WINDOW - sample.shape[-1])))[..., :WINDOW]

    def write(self, path: Path, sample: Tensor, metadata: Mapping[str, Any]) -> None:
        lines = [f"# {key}: {json.dumps(value)}" for key, value in metadata.items()]
        Path(path).write_text("\n".join([*lines, *(f"{value:.9g}" for value in sample[0].tolist())]) + "\n")

    def preview(self, samples: Tensor, captions: Sequence[str] = (), columns: int | None = None) -> Image.Image:
        return Image.new("L", (samples.shape[-1], len(samples)))


@part("modality")
class FadingWaveModality(WaveModality):
    """The same, joined by a cross-fade over two places."""

    def blend(self, known: Tensor, made: Tensor, mask: Tensor) -> Tensor:
        return crossfade(known, made, mask, length=2)


@part("autoencoder")
class HalvedWaves(nn.Module):
    """An autoencoder of no parameters: two neighbouring places are two channels of one place."""

    def encode(self, sample: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return sample.reshape(len(sample), -1, 2).transpose(1, 2)

    def decode(self, latent: Tensor) -> Tensor:
        return latent.transpose(1, 2).reshape(len(latent), 1, -1)

    def latent_shape(self, sample_shape: Sequence[int]) -> tuple[int, ...]:
        return (2, sample_shape[-1] // 2)

    def sample_shape(self, latent_shape: Sequence[int]) -> tuple[int, ...]:
        return (1, 2 * latent_shape[-1])

    def latent_mask(self, mask: Tensor) -> Tensor:
        return mask.reshape(len(mask), 1, -1, 2).amin(-1)


class GaussianWaves(nn.Module):
    """The exact consistency function of waves of mean zero with a covariance over how many places lie between.

    smooth: 0.25 · exp(−(Δ/6)²/2); otherwise 0.25 · 0.8^Δ, an autoregressive process.

    F with cos t · x − sin t · sigma_data · F = Σ^½ V_t^{−½} x, V_t = cos² t Σ + sin² t sigma_data²: the end of the
    trajectory through (x, t). ``seen`` are the latents' shapes, ``told`` what was aligned, call by call.
    """

    sigma_data = 0.5

    def __init__(self, smooth: bool = True) -> None:
        super().__init__()
        self.smooth = smooth
        self.seen: list[tuple[int, ...]] = []
        self.told: list[Tensor | None] = []

    def covariance(self, size: int) -> Tensor:
        place = torch.arange(size, dtype=torch.float64)
        apart = (place[:, None] - place).abs()
        if not self.smooth:
            return 0.25 * 0.8**apart
        return 0.25 * torch.exp(-((apart / 6) ** 2) / 2) + 1e-4 * torch.eye(size, dtype=torch.float64)

    def forward(self, u: Tensor, t: Tensor, cond: Conditioning) -> Tensor:
        self.seen.append(tuple(u.shape))
        self.told.append(cond.concat)
        time = t[0].double()
        x = HalvedWaves().decode(u).double().squeeze(1) * self.sigma_data
        values, vectors = torch.linalg.eigh(self.covariance(x.shape[-1]))
        spread = torch.cos(time) ** 2 * values + torch.sin(time) ** 2 * self.sigma_data**2
        end = x @ vectors @ torch.diag((values / spread).sqrt()) @ vectors.T
        F = (torch.cos(time) * x - end) / (torch.sin(time) * self.sigma_data)
        return HalvedWaves().encode(F[:, None]).to(u.dtype)


BACKBONE = {
    "_target_": "scm_media.nn.transformer.Transformer",
    "in_channels": 2,
    "rank": 1,
    "patch": 2,
    "width": 16,
    "depth": 1,
    "num_heads": 2,
    "labels": {"class": 3},
}


def write_wave_model(folder: Path, modality: str = "WaveModality", longest: float | None = 2.0, **description) -> Path:
    """A model folder of waves with real networks, never trained."""
    networks = {
        "autoencoder": {"_target_": "tests.pipeline.waves.HalvedWaves"},
        "teacher": BACKBONE,
        "student": {**BACKBONE, **({"num_cond_channels": 3} if description.get("mask") else {})},
    }
    for seed, (name, config) in enumerate(networks.items()):
        network = build(config, ROLES[name])
        generator = torch.Generator().manual_seed(seed)
        for parameter in network.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3
        weights.save(folder / f"{name}.safetensors", network.state_dict(), config)
    values = {
        "name": "test/waves",
        "modality": {"_target_": f"tests.pipeline.waves.{modality}", "longest": longest},
        "flow": {"_target_": "scm_media.trigflow.TrigFlow", "sigma_data": 0.5},
        "sampler": SamplerSettings(teacher_steps=3),
        "labels": {"class": ["calm", "rough", "still"]},
        "label_counts": {"class": [1, 1, 1]},
        "sample_shape": [1, WINDOW],
        "latent_shape": [2, WINDOW // 2],
    }
    ModelDescription(**{**values, **description}).write(folder)
    return folder

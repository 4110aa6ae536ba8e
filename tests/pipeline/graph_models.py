"""Model folders whose networks were never trained, for exports that run without the package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from modalities.image.autoencoder import PixelAutoencoder
from scm_media import weights
from scm_media.build import build
from scm_media.networks import ROLES
from scm_media.parts import part
from scm_media.pipeline import ModelDescription, SamplerSettings
from scm_media.prompts import PromptBank
from tests.pipeline.tiny import BACKBONE, CLASSES, write_tiny_model

SOUND, RATE = [1, 128], 4000
MEL = {
    "_target_": "modalities.audio.mel.LogMelSpectrogram",
    "sample_rate": RATE,
    "window": 64,
    "hop": 16,
    "num_mels": 8,
    "magnitude_iterations": 1,
    "phase_iterations": 1,
}


@part("autoencoder")
class BesselAutoencoder(PixelAutoencoder):
    """Decodes by a function that ONNX does not have."""

    def decode(self, latent: Tensor) -> Tensor:
        return torch.special.bessel_j0(super().decode(latent))


@part("autoencoder")
class BranchingAutoencoder(PixelAutoencoder):
    """Decodes in a way that depends on the latent's values."""

    def decode(self, latent: Tensor) -> Tensor:
        return super().decode(latent if latent.sum() > 0 else -latent)


@part("autoencoder")
class CountingAutoencoder(PixelAutoencoder):
    """Decodes sample by sample, in a loop over the batch."""

    def decode(self, latent: Tensor) -> Tensor:
        return torch.cat([super(CountingAutoencoder, self).decode(latent[k : k + 1]) for k in range(len(latent))])


def write_with_decoder(folder: Path, name: str) -> Path:
    """Writes the tiny model of pictures with another autoencoder of this module."""
    write_tiny_model(folder)
    file = folder / "autoencoder.safetensors"
    found = weights.read(file)
    weights.save(file, found.state, {**found.config, "_target_": f"{__name__}.{name}"})
    return folder


def write_sound_model(folder: Path, front: dict[str, Any] = MEL) -> Path:
    """Writes a model of sounds with a class, whose name is a word of Python, and a number."""
    autoencoder = build(front, "autoencoder")
    generator = torch.Generator().manual_seed(3)
    autoencoder.fit([torch.randn(4, *SOUND, generator=generator) * 0.1])
    weights.save(folder / "autoencoder.safetensors", autoencoder.state_dict(), front)
    shape = list(autoencoder.latent_shape(SOUND))
    labels = {"class": 3, "how loud": 0}
    patch = [1 if shape[1] % 4 else 4, 4]
    write_student(folder, {**BACKBONE, "in_channels": shape[0], "patch": patch, "labels": labels})
    ModelDescription(
        name="test/sounds",
        modality={
            "_target_": "modalities.audio.modality.AudioModality",
            "sample_rate": RATE,
            "duration": SOUND[1] / RATE,
            "multiple": 16,
        },
        flow={"_target_": "scm_media.trigflow.TrigFlow", "sigma_data": 0.5},
        sampler=SamplerSettings(),
        labels={"class": ["bell", "whale", "drum"], "how loud": []},
        label_counts={"class": [1, 1, 1]},
        label_quantiles={"how loud": [0.25, 0.5, 1.5]},
        sample_shape=SOUND,
        latent_shape=shape,
    ).write(folder)
    return folder


def write_student(folder: Path, config: dict[str, Any]) -> None:
    """Writes a student with random weights."""
    network = build(config, ROLES["student"])
    generator = torch.Generator().manual_seed(1)
    for parameter in network.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3
    weights.save(folder / "student.safetensors", network.state_dict(), config)


def write_text_model(folder: Path) -> list[str]:
    """Writes a tiny model of texts with random weights and returns its texts."""
    texts = [f"text {number}" for number in range(6)]
    write_tiny_model(
        folder,
        labels={"class": CLASSES, "prompt": texts},
        label_counts={"class": [1] * len(CLASSES), "prompt": [1] * 6},
        label_combinations=[f"{number % len(CLASSES)} {number} 1" for number in range(6)],
        text={"encoder": "/home/me/tiny-bert", "max_tokens": 5, "labels": []},
    )
    write_student(folder, {**BACKBONE, "labels": {}, "text": {"tokens": 4, "pooled": 3}})
    generator = torch.Generator().manual_seed(0)
    mask = torch.arange(3)[None] < torch.tensor([1, 2, 3, 1, 2, 3, 1])[:, None]
    embeddings = {"tokens": torch.randn(7, 3, 4, generator=generator), "token_mask": mask}
    embeddings["pooled"] = torch.randn(7, 3, generator=generator)
    embeddings = {name: value if name == "token_mask" else value.half() for name, value in embeddings.items()}
    PromptBank(texts, embeddings, {"name": "tiny-bert", "digest": "0"}).save(folder / "prompts.safetensors")
    return texts

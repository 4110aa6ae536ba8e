"""Tiny models of the shipped modalities, never trained: pictures in colour, sounds, and clips that can be continued."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from scm_media import weights
from scm_media.build import build
from scm_media.networks import ROLES
from scm_media.pipeline import ModelDescription, SamplerSettings

LABELS = {"class": ["low", "middle", "high"]}
MODELS: Mapping[str, Mapping[str, Any]] = {
    "image": {
        "modality": {"_target_": "modalities.image.modality.ImageModality", "size": 16, "channels": 3},
        "autoencoder": {"_target_": "modalities.image.autoencoder.PixelAutoencoder", "channels": 3},
        "backbone": {"_target_": "scm_media.nn.transformer.Transformer", "rank": 2, "patch": 4, "depth": 1},
    },
    "audio": {
        "modality": {
            "_target_": "modalities.audio.modality.AudioModality",
            "sample_rate": 8000,
            "duration": 0.256,
            "multiple": 256,
        },
        "autoencoder": {
            "_target_": "modalities.audio.mel.LogMelSpectrogram",
            "sample_rate": 8000,
            "window": 256,
            "hop": 64,
            "num_mels": 16,
        },
        "backbone": {"_target_": "scm_media.nn.transformer.Transformer", "rank": 2, "patch": 4, "depth": 1},
    },
    "video": {
        "modality": {
            "_target_": "modalities.video.modality.VideoModality",
            "num_frames": 5,
            "frame_rate": 8.0,
            "size": [16, 24],
        },
        "autoencoder": {
            "_target_": "modalities.video.autoencoder.VideoAutoencoder",
            "space_factor": 4,
            "time_factor": 2,
            "latent_channels": 3,
            "width": 4,
        },
        "backbone": {"_target_": "modalities.video.backbone.SpaceTimeTransformer", "patch": [1, 2, 2], "depth": 1},
    },
}


def write_tiny(kind: str, folder: Path, more: Mapping[str, Any] | None = None, **description: Any) -> Path:
    """Writes a model folder of a kind in ``MODELS``, whose weights are drawn from a seed; more: of its backbones."""
    configs = MODELS[kind]
    modality: Any = build(configs["modality"], "modality")
    autoencoder: Any = build(configs["autoencoder"], "autoencoder")
    generator = torch.Generator().manual_seed(0)
    _draw(autoencoder, generator)
    autoencoder.fit([torch.randn(4, *modality.shape(), generator=generator) * 0.3])
    latent_shape = tuple(autoencoder.latent_shape(modality.shape()))
    backbone = {
        **configs["backbone"],
        "in_channels": latent_shape[0],
        "width": 16,
        "num_heads": 2,
        "labels": {name: len(classes) for name, classes in LABELS.items()},
        **(more or {}),
    }
    weights.save(folder / "autoencoder.safetensors", autoencoder.state_dict(), configs["autoencoder"])
    for name in ("teacher", "student"):
        network = build(backbone, ROLES[name])
        _draw(network, generator)
        weights.save(folder / f"{name}.safetensors", network.state_dict(), backbone)
    values = {
        "name": f"{kind}/tiny",
        "modality": configs["modality"],
        "flow": {"_target_": "scm_media.trigflow.TrigFlow", "sigma_data": 0.5},
        "sampler": SamplerSettings(teacher_steps=3),
        "labels": LABELS,
        "label_counts": {"class": [5, 2, 1]},
        "sample_shape": list(modality.shape()),
        "latent_shape": list(latent_shape),
        "label_dropout": 0.1,
        "student_label_dropout": 0.1,
    }
    ModelDescription(**{**values, **description}).write(folder)
    return folder


def _draw(network: Any, generator: torch.Generator) -> None:
    for parameter in network.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.2

"""A tiny model folder with real networks, never trained: its outputs are functions of noise, label and time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from scm_media import weights
from scm_media.build import build
from scm_media.networks import ROLES
from scm_media.pipeline import ModelDescription, SamplerSettings

CLASSES = ["circle", "Ankle boot", "T-shirt/top"]
BACKBONE = {
    "_target_": "scm_media.nn.transformer.Transformer",
    "in_channels": 1,
    "rank": 2,
    "patch": 4,
    "width": 16,
    "depth": 1,
    "num_heads": 2,
    "labels": {"class": 3},
}
NETWORKS = {
    "autoencoder": {"_target_": "modalities.image.autoencoder.PixelAutoencoder", "channels": 1},
    "teacher": BACKBONE,
    "student": BACKBONE,
    "feature_extractor": {
        "_target_": "modalities.image.features.ImageClassifier",
        "channels": 1,
        "labels": {"class": 3},
        "width": 4,
        "num_features": 8,
    },
}
DESCRIPTION = ModelDescription(
    name="test/tiny",
    modality={"_target_": "modalities.image.modality.ImageModality", "size": 16, "channels": 1},
    flow={"_target_": "scm_media.trigflow.TrigFlow", "sigma_data": 0.5},
    sampler=SamplerSettings(teacher_steps=3),
    labels={"class": CLASSES},
    label_counts={"class": [6, 3, 1]},
    sample_shape=[1, 16, 16],
    latent_shape=[1, 16, 16],
    objective="scd",
    licence="Apache-2.0",
    data="none",
)


def write_networks(folder: Path, networks: Mapping[str, dict[str, Any]], file: str = "{}.safetensors") -> None:
    """Weights of networks by name, drawn from seeds; file: where each one's lie, its name in the braces."""
    for seed, (name, config) in enumerate(networks.items()):
        network = build(config, ROLES[name])
        generator = torch.Generator().manual_seed(seed)
        if name == "autoencoder":
            network.fit([torch.randn(4, 1, 8, 8, generator=generator) * 0.3])
        for parameter in network.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3
        weights.save(folder / file.format(name), network.state_dict(), config)


def write_tiny_model(folder: Path, run_folder: bool = False, **description) -> Path:
    """An exported folder, or one laid out as training leaves it."""
    write_networks(folder, NETWORKS, "{}/weights.safetensors" if run_folder else "{}.safetensors")
    replace(DESCRIPTION, **description).write(folder)
    return folder

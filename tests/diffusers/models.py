"""Model folders of pictures, sounds and clips with networks of our recipes, never trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from scm_media import weights
from scm_media.build import build
from scm_media.networks import ROLES
from scm_media.pipeline import ModelDescription, SamplerSettings
from tests.pipeline.tiny import write_tiny_model

SPECTROGRAM = {
    "_target_": "modalities.audio.mel.LogMelSpectrogram",
    "channels": 1,
    "sample_rate": 8000,
    "window": 128,
    "hop": 64,
    "num_mels": 16,
}
CODES = {
    "_target_": "modalities.video.autoencoder.VideoAutoencoder",
    "channels": 1,
    "space_factor": 4,
    "latent_channels": 4,
    "width": 8,
    "linear_residual": True,
}
SMALL = {"width": 16, "depth": 1, "num_heads": 2}
SOUNDS: dict[str, Any] = {
    "modality": {
        "_target_": "modalities.audio.modality.AudioModality",
        "sample_rate": 8000,
        "duration": 0.256,
        "multiple": 256,
    },
    "labels": {"pitch": ["57", "60", "64"], "kind": ["tone", "noise"], "level": []},
    "label_counts": {"pitch": [1, 1, 1], "kind": [3, 1]},
    "label_combinations": ["0 0 3", "1 0 2", "2 1 1"],
    "label_quantiles": {"level": [10.0, 20.0, 80.0]},
    "sample_shape": [1, 2048],
    "latent_shape": [1, 16, 32],
    "sampler": SamplerSettings(times={"2": [1.5, 0.5]}),
}
CLIPS: dict[str, Any] = {
    "modality": {
        "_target_": "modalities.video.modality.VideoModality",
        "size": 16,
        "num_frames": 7,
        "channels": 1,
        "window": "start",
    },
    "labels": {"shape": ["circle", "square"], "motion": ["left", "right", "up"]},
    "label_counts": {"shape": [1, 1], "motion": [1, 1, 1]},
    "sample_shape": [1, 7, 16, 16],
    "latent_shape": [4, 3, 4, 4],
    "mask": {"probability": 0.3, "types": ["start"], "axis": -3},
    "sampler": SamplerSettings(second_time=1.2),
}


def write_sounds(folder: Path, **description: Any) -> Path:
    """A model of waveforms, whose latents are log-mel spectrograms, with three labels of which one is a number."""
    backbone = {
        "_target_": "scm_media.nn.transformer.Transformer",
        "in_channels": 1,
        "rank": 2,
        "patch": [16, 4],
        "skip": True,
        "labels": {"pitch": 3, "kind": 2, "level": 0},
        **SMALL,
    }
    _write(folder, SPECTROGRAM, backbone, [torch.randn(4, 1, 2048) * 0.1])
    ModelDescription(**_description("test/sounds", SOUNDS | description)).write(folder)
    return folder


def write_clips(folder: Path) -> Path:
    """A model of clips, coded by a convolutional network, whose student takes a mask."""
    backbone = {
        "_target_": "modalities.video.backbone.SpaceTimeTransformer",
        "in_channels": 4,
        "patch": [1, 1, 1],
        "num_cond_channels": 5,
        "labels": {"shape": 2, "motion": 3},
        **SMALL,
    }
    _write(folder, CODES, backbone, [torch.randn(4, 1, 7, 16, 16) * 0.3])
    ModelDescription(**_description("test/clips", CLIPS)).write(folder)
    return folder


WRITERS = {"image": write_tiny_model, "audio": write_sounds, "video": write_clips}


def _description(name: str, values: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "flow": {"_target_": "scm_media.trigflow.TrigFlow", "sigma_data": 0.5}, **values}


def _write(folder: Path, autoencoder: dict[str, Any], backbone: dict[str, Any], samples: list[torch.Tensor]) -> None:
    for seed, (name, config) in enumerate({"autoencoder": autoencoder, "student": backbone}.items()):
        network, generator = build(config, ROLES[name]), torch.Generator().manual_seed(seed)
        for parameter in network.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.2
        if name == "autoencoder":
            if hasattr(network, "prepare"):
                network.prepare(samples)
            network.fit(samples)
        weights.save(folder / f"{name}.safetensors", network.state_dict(), config)

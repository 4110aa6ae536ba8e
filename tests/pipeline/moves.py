"""A model folder of strips that takes two numbers a place, with real networks that were never trained."""

from __future__ import annotations

from pathlib import Path

import torch

from scm_media.data.actions import ActionBank
from scm_media.pipeline import ModelDescription, SamplerSettings
from tests.data.strips import ACROSS, PLACES
from tests.pipeline.tiny import write_networks

NAMES = ["left", "right"]
MASK = {"probability": 0.5, "types": ["start"], "axis": -2, "fraction": [0.1, 0.9]}
BACKBONE = {
    "_target_": "scm_media.nn.transformer.Transformer",
    "in_channels": 1,
    "rank": 2,
    "patch": [1, 4],
    "width": 16,
    "depth": 1,
    "num_heads": 2,
    "labels": {"way": 2},
}


def write_moves_model(folder: Path, mask: bool = True, actions: bool = True, **description) -> Path:
    """An exported folder; of the twelve sequences in its action bank the first eight are of the class "back"."""
    channels = 2 * mask + 2 * actions
    networks = {
        "autoencoder": {"_target_": "modalities.image.autoencoder.PixelAutoencoder", "channels": 1},
        "teacher": {**BACKBONE, "num_cond_channels": channels},
        "student": {**BACKBONE, "num_cond_channels": channels},
    }
    write_networks(folder, networks)
    if actions:
        rows = torch.arange(12.0)[:, None, None].expand(12, 2, PLACES).contiguous()
        way = (torch.arange(12) >= 8).long()
        ActionBank(rows, {"way": way}).save(folder / "action_bank.safetensors")
    values = {
        "name": "test/moves",
        "modality": {"_target_": "tests.data.strips.StripModality"},
        "flow": {"_target_": "scm_media.trigflow.TrigFlow", "sigma_data": 0.5},
        "sampler": SamplerSettings(teacher_steps=3),
        "labels": {"way": ["back", "forth"]},
        "label_counts": {"way": [1, 1]},
        "sample_shape": [1, PLACES, ACROSS],
        "latent_shape": [1, PLACES, ACROSS],
        "label_dropout": 0.1,
        "mask": MASK if mask else None,
        "actions": NAMES if actions else None,
    }
    ModelDescription(**{**values, **description}).write(folder)
    return folder

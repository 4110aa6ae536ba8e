"""Tiny models for the app: clips that take actions."""

from __future__ import annotations

from pathlib import Path

from tests.pipeline.tiny_media import write_tiny

ACTIONS = ["ahead", "left", "right", "fire"]
TIME_FACTOR = 2
"""Frames in one latent frame of the tiny autoencoder of clips."""


def write_steered(folder: Path) -> Path:
    """Writes a model of clips of 5 frames that takes four actions a frame; it was never trained."""
    return write_tiny("video", folder, {"num_cond_channels": TIME_FACTOR * len(ACTIONS)}, actions=ACTIONS)

"""This module writes tiny models for the app, of clips that take actions."""

from __future__ import annotations

from pathlib import Path

from tests.pipeline.tiny_media import write_tiny

ACTIONS = ["ahead", "left", "right", "fire"]
TIME_FACTOR = 2
"""One latent frame of the tiny autoencoder of clips holds so many frames."""


def write_steered(folder: Path) -> Path:
    """Writes a model of clips of 5 frames that takes four actions a frame; it was never trained."""
    return write_tiny("video", folder, {"num_cond_channels": TIME_FACTOR * len(ACTIONS)}, actions=ACTIONS)

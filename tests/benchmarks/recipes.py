"""The recipe of half a second of sound that benchmarks of sounds are tested with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

RATE = 8_000


def sounds(path: str | Path, labels: Sequence[str], **data: Any) -> dict[str, Any]:
    """Returns modality and data of a recipe; path: the manifest. data: further keys of the data."""
    return {
        "modality": {
            "_target_": "modalities.audio.modality.AudioModality",
            "sample_rate": RATE,
            "duration": 0.5,
            "crop": "start",
        },
        "data": {
            "_target_": "scm_media.data.manifest.ManifestDataset",
            "path": str(path),
            "labels": list(labels),
            "held_out": 0.25,
            **data,
        },
    }

"""Small trainings on strips whose actions say how a bright pixel moves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from scm_media import recipe, training
from scm_media.training.encoding import encode
from tests.data.strips import ACROSS, PLACES, StripModality
from tests.training.small import SMALL

STRIPS = (
    "modality.flip=false",
    "backbone.patch=[1,4]",
    "autoencoder.num_samples=16",
    "latents.dtype=float32",
    "latents.shard_size=8",
    "teacher.max_steps=4",
    "student.max_steps=4",
    "teacher.loss.label_dropout=0.1",
)


def write_moves(folder: Path, num: int = 24) -> Path:
    """A manifest of strips in which one place is bright and moves to the left, or to the right, or stays, as told."""
    lines = []
    for number in range(num):
        generator = torch.Generator().manual_seed(number)
        steps = torch.randint(-1, 2, (2,), generator=generator).repeat_interleave(PLACES // 2)
        bright = (number + steps.cumsum(0)) % ACROSS
        sample = torch.full((1, PLACES, ACROSS), -0.8)
        sample[0, torch.arange(PLACES), bright] = [0.9, 0.5][number % 2]
        StripModality().write(folder / f"{number:02d}.json", sample, {})
        moves = [[int(step < 0), int(step > 0)] for step in steps.tolist()]
        lines.append({"path": f"{number:02d}.json", "kind": ["bright", "dim"][number % 2], "moves": moves})
    path = folder / "moves.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def compose(manifest: Path, run_dir: Path, *overrides: str, actions: str | None = "moves") -> dict[str, Any]:
    """Returns the configuration of a small training on such strips."""
    config = recipe.compose("image/tiny", [*SMALL, *STRIPS, f"run_dir={run_dir}", *overrides])
    config["modality"] = {"_target_": "tests.data.strips.StripModality"}
    config["data"] = {
        "_target_": "scm_media.data.manifest.ManifestDataset",
        "path": str(manifest),
        "labels": ["kind"],
        "held_out": 0.2,
    }
    if actions is not None:
        config["data"] |= {"actions": actions, "action_names": ["left", "right"]}
    return config


def train(manifest: Path, run_dir: Path, *overrides: str, actions: str | None = "moves") -> Path:
    """Trains on such strips, or goes on, and returns the run folder."""
    training.run(compose(manifest, run_dir, *overrides, actions=actions))
    return run_dir


def keep_latents(manifest: Path, run_dir: Path) -> int:
    """Encodes the latents of a run; how many examples these were."""
    return encode(compose(manifest, run_dir))["examples"]

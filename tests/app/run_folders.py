"""This module writes run folders as a training leaves them: recipe, figures, sheets and weights."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from PIL import Image

from scm_media import weights

LOSSES = {"teacher": "DiffusionLoss", "student": "ConsistencyLoss"}


def write_run(folder: Path, steps: Mapping[str, int], **stages: Mapping[str, Any]) -> Path:
    """Writes the recipe of a run; steps: the max_steps of each stage, all of batch size 8."""
    config: dict[str, Any] = {"recipe": "image/small", "guide": None, "trajectories": None, "warm_start": None}
    config |= {"feature_extractor": None, "autoencoder": {"network": {}}, "backbone": {"width": 8, "depth": 1}}
    for stage, num in steps.items():
        loss = {"_target_": f"scm_media.losses.{LOSSES.get(stage, 'DiffusionLoss')}"}
        config[stage] = {"max_steps": num, "batch_size": 8, "patience": None, "loss": loss, **stages.get(stage, {})}
        (folder / stage).mkdir(parents=True, exist_ok=True)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(config))
    return folder


def write_figures(folder: Path, lines: Sequence[Mapping[str, Any]], unfinished: str = "") -> None:
    """Writes the figures of a stage, and the beginning of a line that is still being written."""
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "metrics.jsonl").write_text(text + unfinished)


def write_sheet(folder: Path, step: int) -> Path:
    """Writes a sheet of a stage whose red is the step."""
    file = folder / "samples" / f"step-{step}.png"
    file.parent.mkdir(exist_ok=True)
    Image.new("RGB", (64, 48), (step % 256, 90, 160)).save(file)
    return file


def finish(folder: Path, step: int) -> None:
    """Writes the weights of a stage whose training has reached a step."""
    weights.save(folder / "weights.safetensors", {"w": torch.zeros(1)}, {}, {"step": step})

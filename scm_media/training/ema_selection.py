"""Weights of another averaging length, chosen after training, in the place of those that training left."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from scm_media import weights
from scm_media.pipeline.model_folder import ModelFolder

KEY = "ema"
"""Of a weight file's information: how its average was chosen."""


def keep_average(folder: ModelFolder, stage: str, state: Mapping[str, Tensor], choice: Mapping[str, Any]) -> Path:
    """Writes a stage's weights anew and notes the choice in them and in ``model.json``; says where the old ones are.

    The weights that training left stay as ``weights-trained.safetensors`` (a later choice leaves them alone).
    """
    file = folder.file(stage)
    component = weights.read(file)
    trained = file.with_name("weights-trained.safetensors")
    if KEY not in component.info:
        weights.write_whole(trained, file.read_bytes())
    weights.save(file, state, component.config, {**component.info, KEY: dict(choice)})
    folder.redescribe(lambda written: replace(written, ema={**(written.ema or {}), stage: dict(choice)}))
    return trained


def holds_chosen(file: Path, step: int) -> bool:
    """Whether a stage's weights are an average that was chosen for this very step: training then leaves them alone."""
    if not file.exists():
        return False
    info = weights.read_info(file)
    return KEY in info and info.get("step") == step


def chosen_averages(run_dir: Path) -> dict[str, Any]:
    """Stage to how its average was chosen, for ``model.json``."""
    files = {stage: run_dir / stage / "weights.safetensors" for stage in ("teacher", "student")}
    infos = {stage: weights.read_info(file) for stage, file in files.items() if file.exists()}
    return {stage: info[KEY] for stage, info in infos.items() if KEY in info}

"""Writing a model as a folder that stands on its own."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from scm_media import weights
from scm_media.pipeline.card import SHEET_FILE, card_of
from scm_media.pipeline.description import FORMAT
from scm_media.pipeline.folder import NETWORKS, ModelFolder
from scm_media.pipeline.sources import MODEL_FILE

MAX_REFERENCE = 2_000_000
"""Bytes of statistics in a named network's features, beyond which they stay behind."""


def export(
    source: ModelFolder,
    target: Path,
    states: Mapping[str, Mapping[str, Tensor]] | None = None,
    dtype: torch.dtype | None = None,
    teacher: bool = True,
    sheet: Any = None,
) -> Path:
    """Writes a model folder (weights, recipe, figures, card) and gives it back.

    states: by network, what to write instead of what the source's files hold. dtype: of floating-point weights, None:
    as they are. teacher: whether the teacher and its guide go along. sheet: a picture (PIL) of samples for the card.
    Statistics in a named network's features go along when they are small. ``model.json`` comes last, so that a folder
    that has one is complete. Raises ValueError when the source lacks a student or an autoencoder, or is the target.
    """
    if target.exists() and target.resolve() == source.path.resolve():
        raise ValueError(f"{target} is the model's own folder; export to another one")
    states = states or {}
    for name in NETWORKS:
        if not source.has(name) and name not in ("autoencoder", "student"):
            continue
        if name in ("teacher", "guide") and not teacher:
            continue
        component = source.read(name)
        state = states.get(name, component.state)
        weights.save(target / f"{name}.safetensors", state, component.config, component.info, dtype)
    for name in ("reference", *_named_references(source)):
        if source.has(name):
            weights.write_whole(target / f"{name}.safetensors", source.file(name).read_bytes())
    if source.recorded_file.is_file():
        weights.write_whole(target / source.recorded_file.name, source.recorded_file.read_bytes())
    if (source.path / "recipe.yaml").is_file():
        weights.write_whole(target / "recipe.yaml", _without_places(source.path / "recipe.yaml").encode())
    for file in (*source.path.glob("metrics*.json"), source.path / "nearest.json"):
        if file.is_file():
            weights.write_whole(target / file.name, file.read_bytes())
    if sheet is not None:
        picture = io.BytesIO()
        sheet.save(picture, format="PNG")
        weights.write_whole(target / SHEET_FILE, picture.getvalue())
    weights.write_whole(target / "README.md", card_of(source, sheet=sheet is not None).encode())
    description = {**source.description, "format": FORMAT}
    weights.write_whole(target / MODEL_FILE, (json.dumps(description, indent=2, ensure_ascii=False) + "\n").encode())
    return target


def _named_references(source: ModelFolder) -> list[str]:
    """``reference-NAME`` of each named network whose statistics are small enough to go along."""
    folder = source.path / "evaluation" if source.is_run else source.path
    return [
        file.stem for file in sorted(folder.glob("reference-*.safetensors")) if file.stat().st_size <= MAX_REFERENCE
    ]


def _without_places(recipe: Path) -> str:
    """The recipe as others may see it: with the default run folder, and without where things lay on this machine."""
    config = yaml.safe_load(recipe.read_text(encoding="utf-8"))
    if "recipe" in config:
        config["run_dir"] = f"runs/{config['recipe']}/main"
    data = config.get("data")
    if isinstance(data, dict):
        data |= {key: None for key in ("root", "index") if key in data}
        data |= {key: _without_folders(data[key]) for key in ("path", "shards") if key in data}
    if "init_from" in config:
        config["init_from"] = _without_folders(config["init_from"])
    return yaml.safe_dump(config, sort_keys=False, allow_unicode=True)


def _without_folders(place: Any) -> Any:
    """A place, or a list of such, an absolute path being cut to its last part."""
    if isinstance(place, list):
        return [_without_folders(each) for each in place]
    return Path(place).name if isinstance(place, str) and Path(place).is_absolute() else place

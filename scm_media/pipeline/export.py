"""Writing a model as a folder that stands on its own."""

from __future__ import annotations

import io
import json
import os
import shutil
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

_UNNAMED = ".model.json.part"
_FILES = (
    MODEL_FILE,
    *(f"{name}.safetensors" for name in (*NETWORKS, "reference", "recorded")),
    *("recipe.yaml", "metrics.json", "nearest.json", "README.md", SHEET_FILE),
)
MAX_REFERENCE = 2_000_000
"""Bytes of statistics in a named network's features, beyond which they stay behind."""


def export(
    source: ModelFolder,
    target: Path,
    states: Mapping[str, Mapping[str, Tensor]] | None = None,
    dtype: torch.dtype | None = None,
    teacher: bool = True,
    sheet: Any = None,
    overwrite: bool = False,
) -> Path:
    """Writes a model folder (weights, recipe, figures, card) and returns it.

    states: by network, what to write instead of what the source's files hold. dtype: of floating-point weights, None:
    as they are. teacher: whether the teacher and its guide go along. sheet: a picture (PIL) of samples for the card.
    overwrite: whether an earlier export in the folder is replaced, as a whole; files that no export writes stay.
    Statistics in a named network's features go along when they are small.

    All is written aside and renamed, ``model.json`` last: a folder that has one is complete, and of one model. Raises
    ValueError when the source lacks a student or an autoencoder, and as ``check_target``; OSError when something
    cannot be written, the folder being then as it was.
    """
    check_target(source, target, overwrite)
    whole = target.resolve()
    # Beside a new folder, in one that is there already: nothing is renamed from one file system to another.
    place = whole if whole.is_dir() else whole.parent
    weights.remove_leftovers(place.glob(f".{whole.name}.*.part"))
    aside = place / f".{whole.name}.{os.getpid()}.part"
    try:
        aside.mkdir(parents=True)
        _write(source, aside, states or {}, dtype, teacher, sheet)
        if place is whole:
            for old in sorted(_files_of_exports(whole), key=lambda file: file.name != MODEL_FILE):
                old.unlink()
            for file in aside.iterdir():
                os.replace(file, whole / file.name)
            aside.rmdir()
        else:
            os.rename(aside, whole)
        os.replace(whole / _UNNAMED, whole / MODEL_FILE)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    return target


def check_target(source: ModelFolder, target: Path, overwrite: bool) -> None:
    """Raises ValueError where a model cannot be exported to: its own folder, a run folder, a file, another export.

    overwrite: whether an earlier export, and files that are named as an export's, may be replaced.
    """
    if target.exists() and target.resolve() == source.path.resolve():
        raise ValueError(f"{target} is the model's own folder; export to another one")
    if target.exists() and not target.is_dir():
        raise ValueError(f"{target} is a file; export to a folder")
    if (target / "autoencoder").is_dir():
        raise ValueError(f"{target} is a run folder, which keeps its own weights; export to another one")
    there = sorted(file.name for file in _files_of_exports(target))
    if there and not overwrite:
        what = "a model" if MODEL_FILE in there else ", ".join(there[:4])
        raise ValueError(
            f"{target} holds {what} already: export to another folder, or replace it by --overwrite "
            "(save_pretrained(..., overwrite=True)), which leaves files of other names as they are"
        )


def _files_of_exports(folder: Path) -> list[Path]:
    """Returns the files in a folder that have the name of one that exports write."""
    patterns = ("reference-*.safetensors", "metrics-*.json")
    named = [folder / name for name in _FILES]
    return [file for file in (*named, *(f for each in patterns for f in folder.glob(each))) if os.path.lexists(file)]


def _write(
    source: ModelFolder,
    folder: Path,
    states: Mapping[str, Mapping[str, Tensor]],
    dtype: torch.dtype | None,
    teacher: bool,
    sheet: Any,
) -> None:
    """Writes all files of an export into a folder, ``model.json`` under a name that does not make it a model yet."""
    for name in NETWORKS:
        if not source.has(name) and name not in ("autoencoder", "student"):
            continue
        if name in ("teacher", "guide") and not teacher:
            continue
        component = source.read(name)
        state = states.get(name, component.state)
        weights.save(folder / f"{name}.safetensors", state, component.config, component.info, dtype)
    for name in ("reference", *_named_references(source)):
        if source.has(name):
            weights.write_whole(folder / f"{name}.safetensors", source.file(name).read_bytes())
    if source.recorded_file.is_file():
        weights.write_whole(folder / source.recorded_file.name, source.recorded_file.read_bytes())
    if (source.path / "recipe.yaml").is_file():
        weights.write_whole(folder / "recipe.yaml", _without_places(source.path / "recipe.yaml").encode())
    for file in (*source.path.glob("metrics*.json"), source.path / "nearest.json"):
        if file.is_file():
            weights.write_whole(folder / file.name, file.read_bytes())
    if sheet is not None:
        picture = io.BytesIO()
        sheet.save(picture, format="PNG")
        weights.write_whole(folder / SHEET_FILE, picture.getvalue())
    weights.write_whole(folder / "README.md", card_of(source, sheet=sheet is not None).encode())
    description = {**source.description, "format": FORMAT}
    weights.write_whole(folder / _UNNAMED, (json.dumps(description, indent=2, ensure_ascii=False) + "\n").encode())


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

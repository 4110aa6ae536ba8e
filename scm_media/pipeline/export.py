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
from scm_media.pipeline.privacy import without_folders
from scm_media.pipeline.sources import MODEL_FILE, PLAIN_NAME

_UNNAMED = ".model.json.part"
_FILES = (
    MODEL_FILE,
    *(f"{name}.safetensors" for name in (*NETWORKS, "reference", "recorded")),
    *("recipe.yaml", "metrics.json", "memorization.json", "README.md", SHEET_FILE),
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
        info = without_folders(component.info)
        weights.save(folder / f"{name}.safetensors", state, without_folders(component.config), info, dtype)
    # Nothing is copied: what is written was read as what it should be, so that no other file's content goes along.
    for name in ("reference", *_named_references(source)):
        if source.has(name):
            statistics = source.read(name)
            weights.save(folder / f"{name}.safetensors", statistics.state, statistics.config, statistics.info)
    if source.action_bank_file.is_file():
        rows = weights.read(source.action_bank_file)
        weights.save(folder / source.action_bank_file.name, rows.state, rows.config, rows.info)
    if (recipe := source.recipe()) is not None:
        weights.write_whole(folder / "recipe.yaml", _without_places(recipe).encode())
    figures = {"metrics.json": source.metrics(), **source.second_opinions(), "memorization.json": source.memorization()}
    for name, found in figures.items():
        if found is not None:
            weights.write_whole(folder / name, f"{json.dumps(found, indent=2, ensure_ascii=False)}\n".encode())
    if sheet is not None:
        picture = io.BytesIO()
        sheet.save(picture, format="PNG")
        weights.write_whole(folder / SHEET_FILE, picture.getvalue())
    weights.write_whole(folder / "README.md", card_of(source, sheet=sheet is not None).encode())
    description = {**without_folders(source.description), "format": FORMAT}
    weights.write_whole(folder / _UNNAMED, (json.dumps(description, indent=2, ensure_ascii=False) + "\n").encode())


def _named_references(source: ModelFolder) -> list[str]:
    """``reference-NAME`` of each named network whose statistics are small enough to go along."""
    folder = source.path / "evaluation" if source.is_run else source.path
    return [
        file.stem
        for file in sorted(folder.glob("reference-*.safetensors"))
        if PLAIN_NAME.fullmatch(file.stem) and file.is_file() and file.stat().st_size <= MAX_REFERENCE
    ]


def _without_places(config: Mapping[str, Any]) -> str:
    """Returns the recipe as others may see it: with the default run folder, and without where things lay here."""
    config = dict(without_folders(config))
    if "recipe" in config:
        config["run_dir"] = f"runs/{config['recipe']}/main"
    data, logger = config.get("data"), config.get("logger")
    if isinstance(data, dict):
        data |= {key: None for key in ("root", "index") if key in data}
    if isinstance(logger, dict):
        logger.pop("root_dir", None)
    return yaml.safe_dump(config, sort_keys=False, allow_unicode=True)

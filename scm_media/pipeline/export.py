"""Writes a model as a folder of its own, without paths of this machine."""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import torch
import yaml
from torch import Tensor

from scm_media import weights
from scm_media.adapters.lora_files import is_lora
from scm_media.pipeline.card import SHEET_FILE, format_card
from scm_media.pipeline.description import MODEL_FILE, ModelDescription
from scm_media.pipeline.exported_texts import exported_texts, select_texts
from scm_media.pipeline.model_folder import NETWORKS, RECIPE_FILE, ModelFolder
from scm_media.prompts import LABEL as PROMPT

CARD_FILE = "README.md"
UNNAMED = ".model.json.part"
"""Name of ``model.json`` until all other files are in their place."""
_FILES = (
    *(f"{name}.safetensors" for name in (*NETWORKS, "reference", "action_bank", "prompts")),
    *(MODEL_FILE, RECIPE_FILE, "metrics.json", "memorization.json", CARD_FILE, SHEET_FILE),
)
CONVERTED = (*NETWORKS, "prompts")
"""Parts whose floating-point tensors take the type that an export is written in."""
MAX_REFERENCE = 2_000_000
"""Largest statistics in another network's features that go along, in bytes."""
NAMED_BY_USERS = frozenset({"labels", "classes"})
"""Keys below which a text that begins with a slash is a name that a user gave, and not a path."""


def export(
    source: ModelFolder,
    target: Path,
    states: Mapping[str, Mapping[str, Tensor]] | None = None,
    dtype: torch.dtype | None = None,
    teacher: bool = True,
    sheet: Any = None,
    overwrite: bool = False,
    texts: Sequence[str] | None = None,
) -> Path:
    """Writes a model folder (weights, recipe, figures, card) and returns it.

    states: network to the tensors that replace those of its file. dtype: type of floating-point weights; None keeps
    theirs. teacher: exports the teacher and its guide too. sheet: a picture (PIL) of samples for the card. overwrite:
    replaces an earlier export in the folder as a whole; files that no export writes stay. texts: those of the model's
    whose embeddings go along; None for some of them. Statistics in another network's features go along when they are
    small.

    A folder that has a ``model.json`` is complete, and of one model. Raises ValueError when the source lacks a student
    or an autoencoder, and as ``check_target``; OSError when something cannot be written: the folder is then unchanged.
    """
    check_target(source, target, overwrite)
    with write_aside(target) as folder:
        _write(source, folder, states or {}, dtype, teacher, sheet, texts)
    return target


@contextmanager
def write_aside(target: Path) -> Iterator[Path]:
    """Yields an empty folder whose files replace an earlier export in ``target`` at the end.

    The model's description is written into it as ``UNNAMED``, and becomes ``model.json`` last. After an error the
    target is unchanged.
    """
    whole = target.resolve()
    # Beside a new folder, but inside an existing one: nothing is renamed from one file system to another.
    place = whole if whole.is_dir() else whole.parent
    weights.remove_leftovers(place.glob(f".{whole.name}.*.part"))
    aside = place / f".{whole.name}.{os.getpid()}.part"
    try:
        aside.mkdir(parents=True)
        yield aside
        if place is whole:
            for old in sorted(_exported_files(whole), key=lambda file: file.name != MODEL_FILE):
                old.unlink()
            for file in aside.iterdir():
                os.replace(file, whole / file.name)
            aside.rmdir()
        else:
            os.rename(aside, whole)
        os.replace(whole / UNNAMED, whole / MODEL_FILE)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def check_target(source: ModelFolder, target: Path, overwrite: bool) -> None:
    """Raises ValueError for a folder that cannot be exported to: the model's own, a run folder, another export, a file.

    overwrite: accepts an earlier export, and files that are named as those of an export.
    """
    if target.exists() and target.resolve() == source.path.resolve():
        raise ValueError(f"{target} is the model's own folder; export to another one")
    if target.exists() and not target.is_dir():
        raise ValueError(f"{target} is a file; export to a folder")
    if (target / "autoencoder").is_dir():
        raise ValueError(f"{target} is a run folder, which keeps its own weights; export to another one")
    there = sorted(file.name for file in _exported_files(target))
    if there and not overwrite:
        what = "a model" if MODEL_FILE in there else ", ".join(there[:4])
        raise ValueError(
            f"{target} holds {what} already: export to another folder, or replace it by --overwrite "
            "(save_pretrained(..., overwrite=True)), which leaves files of other names as they are"
        )


def without_folders(value: Any) -> Any:
    """Returns a tree of plain values in which every absolute path, of any system, is cut to its last part."""
    if isinstance(value, Mapping):
        return {key: each if key in NAMED_BY_USERS else without_folders(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [without_folders(each) for each in value]
    return base_name(value) if isinstance(value, str) else value


def base_name(text: str) -> str:
    """Returns the last part of an absolute path, or of one below a home folder; any other text unchanged."""
    for kind in (PurePosixPath, PureWindowsPath):
        path = kind(text)
        if path.is_absolute() or text.startswith("~"):
            return path.name or text
    return text


def write_json(file: Path, value: Any) -> None:
    """Writes a JSON file, complete or not at all."""
    weights.write_whole(file, f"{json.dumps(value, indent=2, ensure_ascii=False)}\n".encode())


def _exported_files(folder: Path) -> list[Path]:
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
    texts: Sequence[str] | None,
) -> None:
    """Writes all files of an export into a folder."""
    for name, component in read_exported(source, teacher, texts):
        state, kind = states.get(name, component.state), dtype if name in CONVERTED else None
        weights.save(folder / f"{name}.safetensors", state, component.config, component.info, kind)
    if (recipe := source.recipe()) is not None:
        weights.write_whole(folder / RECIPE_FILE, format_recipe(recipe).encode())
    for name, found in source.all_figures().items():
        write_json(folder / name, found)
    if sheet is not None:
        picture = io.BytesIO()
        sheet.save(picture, format="PNG")
        weights.write_whole(folder / SHEET_FILE, picture.getvalue())
    exported = exported_description(source, texts)
    weights.write_whole(folder / CARD_FILE, format_card(source, sheet is not None, exported).encode())
    description = without_folders(exported.to_json())
    ModelDescription.from_json(description, source.path / MODEL_FILE).write(folder, UNNAMED)


def exported_description(source: ModelFolder, texts: Sequence[str] | None = None) -> ModelDescription:
    """Returns the description of an export, which has the texts that go along with it; ValueError for unknown ones."""
    if not source.has("prompts"):
        if texts is not None:
            raise ValueError(f"{source.path} takes no text, so that no texts can be chosen to go along")
        return source.description
    return exported_texts(source.description, source.read("prompts", check=False), texts)


def read_exported(
    source: ModelFolder, teacher: bool, texts: Sequence[str] | None = None
) -> Iterator[tuple[str, weights.Component]]:
    """Yields the name and content of each weight file of an export, without paths of this machine.

    texts: those whose embeddings go along; None for some of them. Each file is read as what it should be: a copied one
    could carry another's content along. Raises ValueError as ``export``.
    """
    for name in NETWORKS:
        if not source.has(name) and name not in ("autoencoder", "student"):
            continue
        if name in ("teacher", "guide") and not teacher:
            continue
        component = source.read(name)
        if name == "student" and not teacher and is_lora(component.config):
            raise ValueError(
                f"{source.path}: its student is a LoRA over the teacher, so it cannot be exported without it; leave "
                "--no-teacher out, or export the LoRA alone by --format lora"
            )
        config, info = without_folders(component.config), without_folders(component.info)
        yield name, weights.Component(component.state, config, info)
    for name in ("reference", *source.named_references(), "action_bank", "prompts"):
        if source.has(name):
            found = source.read(name)
            if name == "prompts" and source.description.text is not None:
                found = select_texts(found, exported_texts(source.description, found, texts).labels[PROMPT])
            if not name.startswith("reference-") or _num_bytes(found) <= MAX_REFERENCE:
                yield name, found


def _num_bytes(component: weights.Component) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in component.state.values())


def format_recipe(config: Mapping[str, Any]) -> str:
    """Returns the recipe as others may see it: with the default run folder, and without the paths of its data."""
    config = dict(without_folders(config))
    if "recipe" in config:
        config["run_dir"] = f"runs/{config['recipe']}/main"
    data, logger = config.get("data"), config.get("logger")
    if isinstance(data, dict):
        data |= {key: None for key in ("root", "index") if key in data}
    if isinstance(logger, dict):
        logger.pop("root_dir", None)
    return yaml.safe_dump(config, sort_keys=False, allow_unicode=True)

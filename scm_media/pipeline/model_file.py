"""A model in one safetensors file: the weight files of a model folder side by side, and its texts in the header."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from scm_media import weights
from scm_media.adapters.lora_files import is_lora
from scm_media.pipeline.description import MODEL_FILE, ModelDescription
from scm_media.pipeline.export import CONVERTED, exported_description, format_recipe, read_exported, without_folders
from scm_media.pipeline.hub import PLAIN_NAME
from scm_media.pipeline.model_folder import (
    MEMORIZATION_FILE,
    METRICS_FILE,
    NETWORKS,
    ModelFolder,
    is_second_opinion,
)
from scm_media.reading import MAX_BYTES_OF_YAML, parse_yaml
from scm_media.typed import show

SUFFIX = ".safetensors"
FORMAT = 1
KEY = "scm_media_file"
"""The key of the format's number in the header's configuration: files of one network have none."""
KEYS = (KEY, "model", "parts", "recipe", "figures")
SEPARATOR = "/"
"""Stands between the name of a part and that of its tensor: ``student/blocks.0.weight``."""
PARTS = (*NETWORKS, "reference", "action_bank", "prompts")


@dataclass(frozen=True)
class FilePart:
    """One weight file's share of the header: configuration, information, and the digest of all of it."""

    config: Mapping[str, Any]
    info: Mapping[str, Any]
    digest: str


@dataclass(frozen=True)
class ModelFile(ModelFolder):
    """A model in one file, used like a ``ModelFolder``; ``path`` is the file. Nothing is written into it.

    parts: name to the configuration, information and digest of each weight file in it. tensors: the names of all
    tensors. recipe_text: the recipe as YAML. figures: those of each ``metrics.json`` and the like by name.
    """

    parts: Mapping[str, FilePart]
    tensors: Sequence[str]
    recipe_text: str | None
    figures: Mapping[str, Mapping[str, Any]]

    @classmethod
    def open_file(cls, path: Path) -> ModelFile:
        """Returns the model of a file that ``export_file`` wrote.

        Raises ValueError, naming the file, when it is cut short or no safetensors file, when it holds one network
        and not a model, when a newer version wrote it, and for keys and tensors that no model has.
        """
        if path.suffix != SUFFIX:
            raise ValueError(f"{path} is no model: give a folder, or a file that ends in {SUFFIX}")
        header, tensors = weights.read_config(path)
        if KEY not in header:
            raise ValueError(
                f"{path} holds no whole model (its header lacks {KEY}): open the folder that it belongs to, or write "
                f"a model to one file by scm-media export MODEL FILE{SUFFIX} --format safetensors"
            )
        if header[KEY] != FORMAT:
            raise ValueError(f"{path} has format {show(header[KEY])}, this version reads {FORMAT}; update scm-media")
        try:
            _check_header(header, tensors)
        except ValueError as error:
            raise ValueError(f"{path}: {error}; export the model again") from error
        parts = {name: FilePart(**part) for name, part in header["parts"].items()}
        description = ModelDescription.from_json(header["model"], path)
        return cls(path, description, parts, tensors, header["recipe"], header["figures"])

    def redescribe(self, change: Callable[[ModelDescription], ModelDescription]) -> None:
        """Raises ValueError: a file is replaced as a whole."""
        raise ValueError(
            f"{self.path} is a model in one file, which is not written to: change its folder, or one that scm-media "
            "export makes of it, and export that again"
        )

    @property
    def is_run(self) -> bool:
        """Returns false."""
        return False

    def file(self, name: str) -> Path:
        """Returns the file itself, which holds everything."""
        return self.path

    def has(self, name: str) -> bool:
        """Returns true when the file holds a part: a network, ``reference``, ``action_bank`` or ``prompts``."""
        return name in self.parts

    def _component(self, name: str, check: bool) -> weights.Component:
        part, prefix = self.parts[name], name + SEPARATOR
        stored = weights.read_tensors(self.path, [each for each in self.tensors if each.startswith(prefix)])
        state = {each.removeprefix(prefix): tensor for each, tensor in stored.items()}
        found = weights.Component(state, dict(part.config), dict(part.info))
        if check and _digest(found) != part.digest:
            raise ValueError(
                f"{self.path} is damaged: its {name} does not have the digest (SHA-256) in the header; copy the file "
                "again, or export the model again"
            )
        return found

    def named_references(self) -> list[str]:
        """Returns ``reference-NAME`` of each other network that the file has statistics of."""
        return sorted(name for name in self.parts if name.startswith("reference-"))

    def recipe(self) -> dict[str, Any] | None:
        """Returns the recipe, None without one; raises ValueError for anything but a mapping in YAML."""
        if self.recipe_text is None:
            return None
        recipe = parse_yaml(self.recipe_text, f"the recipe in {self.path}")
        if not isinstance(recipe, dict):
            raise ValueError(f"the recipe in {self.path} holds no mapping of keys; export the model again")
        return recipe

    def _figure_names(self) -> list[str]:
        return list(self.figures)

    def _figures(self, name: str) -> dict[str, Any] | None:
        return dict(self.figures[name]) if name in self.figures else None


def _check_header(header: Mapping[str, Any], tensors: Sequence[str]) -> None:
    """Raises ValueError for keys, parts, figures and tensors that no model has, and for values of another type."""
    if missing := [key for key in KEYS if key not in header]:
        raise ValueError(f"its header lacks {', '.join(missing)}, which every model has")
    _refuse("keys of its header", [key for key in header if key not in KEYS], f"it takes {', '.join(KEYS)}")
    parts, figures, recipe = (header[key] for key in ("parts", "figures", "recipe"))
    if not (_holds_mappings(parts) and _holds_mappings(figures) and isinstance(recipe, str | None)):
        raise ValueError("parts and figures in its header must be mappings by name, and recipe a text")
    for name, part in parts.items():
        kinds = {"config": dict, "info": dict, "digest": str}
        if part.keys() != kinds.keys() or not all(isinstance(part[key], kind) for key, kind in kinds.items()):
            raise ValueError(f"the part {show(name)} of its header is no config, info and digest")
    others = [name for name in parts if name not in PARTS and not _is_named_reference(name)]
    _refuse("parts", others, f"there are {', '.join(PARTS)} and reference-NAME")
    known = (METRICS_FILE, MEMORIZATION_FILE)
    others = [name for name in figures if name not in known and not is_second_opinion(name)]
    _refuse("figures", others, f"there are {', '.join(known)} and metrics-NAME.json")
    others = [name for name in tensors if SEPARATOR not in name or name.partition(SEPARATOR)[0] not in parts]
    _refuse("tensors", others, "each is named PART/NAME, after a part of the header")
    if recipe is not None and len(recipe.encode()) > MAX_BYTES_OF_YAML:
        raise ValueError(f"its recipe has {len(recipe.encode())} bytes, expected at most {MAX_BYTES_OF_YAML}")


def _holds_mappings(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(each, dict) for each in value.values())


def _is_named_reference(name: str) -> bool:
    return name.startswith("reference-") and PLAIN_NAME.fullmatch(name) is not None


def _refuse(kind: str, names: Sequence[str], expected: str) -> None:
    if names:
        listed = ", ".join(show(name) for name in names[: weights.NUM_KEYS_SHOWN])
        raise ValueError(f"it holds {kind} that no model has ({listed}); {expected}")


def check_file_target(source: ModelFolder, target: Path, overwrite: bool) -> None:
    """Raises ValueError for a path that no model file can be written to.

    These are the model's own file, a folder, a name of another suffix, a place in a model's folder, where it would be
    taken for one of its weight files, and, without overwrite, any file that exists.
    """
    if target.suffix != SUFFIX:
        raise ValueError(f"{target}: name a file that ends in {SUFFIX}")
    if target.is_dir():
        raise ValueError(f"{target} is a folder; name a file that ends in {SUFFIX}")
    if os.path.lexists(target) and target.resolve() == source.path.resolve():
        raise ValueError(f"{target} is the model's own file; export to another one")
    for parent in target.absolute().parents:
        if (parent / MODEL_FILE).exists():
            raise ValueError(f"{parent} is a model's folder, which keeps its own files; export to another one")
    if os.path.lexists(target) and not overwrite:
        raise ValueError(f"{target} exists: export to another file, or replace it by --overwrite")


def _digest(part: weights.Component) -> str:
    """Returns sixteen hexadecimal digits that a part's tensors, configuration and information give."""
    return weights.digest(weights.Component(part.state, {"config": part.config, "info": part.info}, {}))


def needs_teacher(source: ModelFolder) -> bool:
    """Returns whether the student is a LoRA, which has the teacher's weights below its own."""
    return source.has("student") and is_lora(source.read("student", check=False).config)


def export_file(
    source: ModelFolder,
    target: Path,
    dtype: torch.dtype | None = None,
    teacher: bool | None = None,
    overwrite: bool = False,
    texts: Sequence[str] | None = None,
) -> Path:
    """Writes a model to one safetensors file, complete or not at all, and returns the file.

    dtype: type of the networks' floating-point weights; None keeps theirs. teacher: takes the teacher and its guide
    along; None where the student needs it. texts: those whose embeddings go along; None for some. Model card and sheet
    of samples stay behind; the facts of the card do not.
    Raises ValueError as ``check_file_target``, as ``export``, and for a description that is too long for the header of
    a file; OSError when it cannot be written.
    """
    check_file_target(source, target, overwrite)
    teacher = needs_teacher(source) if teacher is None else teacher
    tensors: dict[str, Tensor] = {}
    parts: dict[str, dict[str, Any]] = {}
    for name, component in read_exported(source, teacher, texts):
        state = weights.to_storage(component.state, dtype if name in CONVERTED else None, target)
        digest = _digest(weights.Component(state, component.config, component.info))
        parts[name] = {"config": component.config, "info": component.info, "digest": digest}
        tensors |= {f"{name}{SEPARATOR}{each}": tensor for each, tensor in state.items()}
    recipe = source.recipe()
    header = {
        KEY: FORMAT,
        "model": without_folders(exported_description(source, texts).to_json()),
        "parts": parts,
        "recipe": None if recipe is None else format_recipe(recipe),
        "figures": source.all_figures(),
    }
    _check_header(header, list(tensors))
    content = safetensors.torch.save(tensors, {"format": "pt", "config": json.dumps(header)})
    if (length := int.from_bytes(content[:8], "little")) > weights.MAX_HEADER:
        raise ValueError(
            f"{target}: names of tensors, description and recipe have {length} bytes together, a file takes "
            f"{weights.MAX_HEADER}; export a folder (without --format)"
        )
    weights.write_whole(target, content)
    return target

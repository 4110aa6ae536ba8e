"""Finds models in ComfyUI's folders and loads them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import comfy.model_management
import folder_paths

from scm_media.pipeline import Pipeline, bundled_names, load
from scm_media.pipeline.description import MODEL_FILE
from scm_media.pipeline.loaded_model import PRECISIONS
from scm_media.pipeline.model_file import SUFFIX

CATEGORY = "scm-media"
FOLDER = "scm_media"
"""The key of our models in ``folder_paths`` and ``extra_model_paths.yaml``, and the folder below ComfyUI's models."""
MODEL = "SCM_MEDIA_MODEL"
"""The type of a ``NamedPipeline`` in graphs."""


@dataclass(frozen=True)
class NamedPipeline:
    """A loaded model and the name that it was chosen by."""

    name: str
    pipeline: Pipeline

    def expect(self, modality: str) -> Pipeline:
        """Returns the pipeline; raises ValueError for a model of another modality than a node is made for."""
        found = self.pipeline.modality.name
        if found != modality:
            raise ValueError(f"{self.name} is a model of {found}, and this node is for {modality}: use that of {found}")
        return self.pipeline


def register_folder() -> None:
    """Adds ``models/scm_media`` to ComfyUI's folders, beside those of ``extra_model_paths.yaml``."""
    own = os.path.join(folder_paths.models_dir, FOLDER)
    known = folder_paths.get_folder_paths(FOLDER) if FOLDER in folder_paths.folder_names_and_paths else []
    if own not in known:
        folder_paths.add_model_folder_path(FOLDER, own)


def list_models() -> dict[str, Path | str]:
    """Returns name to place of each model: files and folders in ComfyUI's folders, then the bundled models.

    The weight files in a model's folder are not listed. Of two models of one name the first is taken.
    """
    found: dict[str, Path | str] = {}
    for root in map(Path, folder_paths.get_folder_paths(FOLDER)):
        seen = set()
        for place, folders, files in os.walk(root, followlinks=True):
            folder, real = Path(place), os.path.realpath(place)
            if real in seen:  # a link back up
                folders.clear()
                continue
            seen.add(real)
            folders.sort()
            if MODEL_FILE in files:
                folders.clear()
                name = folder.name if folder == root else folder.relative_to(root).as_posix()
                found.setdefault(name, folder)
                continue
            for name in sorted(each for each in files if each.endswith(SUFFIX)):
                found.setdefault((folder / name).relative_to(root).as_posix(), folder / name)
    return found | {name: name for name in bundled_names() if name not in found}


class LoadModel:
    """Loads a model from a file or folder in ``models/scm_media``, or a bundled one."""

    CATEGORY = CATEGORY
    DESCRIPTION = "Loads a model of scm-media: a .safetensors file or a folder in models/scm_media, or a bundled one."
    FUNCTION = "load"
    RETURN_TYPES = (MODEL,)
    RETURN_NAMES = ("model",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """Returns the inputs; the models are looked up whenever ComfyUI asks."""
        devices = {"tooltip": "auto: the device that ComfyUI computes on"}
        precisions = {"tooltip": "bf16: matrix products alone, which is faster on GPUs; samples change a little"}
        return {
            "required": {"model": (list(list_models()), {"tooltip": "files and folders in models/scm_media"})},
            "optional": {"device": (["auto", "cpu"], devices), "precision": (list(PRECISIONS), precisions)},
        }

    @classmethod
    def IS_CHANGED(cls, model: str, **_: Any) -> str:
        """Returns a text that changes with the model's files, so that an exported anew is loaded anew."""
        place = Path(list_models().get(model, model))
        files = sorted(place.iterdir()) if place.is_dir() else [place] if place.is_file() else []
        return " ".join(f"{file.name}:{file.stat().st_mtime_ns}:{file.stat().st_size}" for file in files)

    def load(self, model: str, device: str = "auto", precision: str = "float32") -> tuple[NamedPipeline]:
        """Returns the model; raises ValueError for an unknown name, and as ``scm_media.load``."""
        models = list_models()
        if model not in models:
            places = ", ".join(folder_paths.get_folder_paths(FOLDER))
            raise ValueError(f"there is no model {model!r} in {places}; there are: {', '.join(models) or 'none'}")
        chosen = str(comfy.model_management.get_torch_device()) if device == "auto" else device
        return (NamedPipeline(model, load(models[model], chosen, precision)),)

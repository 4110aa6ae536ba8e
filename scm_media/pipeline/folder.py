"""The folder that a model lives in: what it says about itself, and its weight files."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scm_media import weights
from scm_media.pipeline.description import checked
from scm_media.pipeline.sources import MODEL_FILE, PLAIN_NAME, find_folder
from scm_media.reading import read_json, read_yaml

RECIPE_FILE = "recipe.yaml"
NETWORKS = ("autoencoder", "teacher", "guide", "student", "feature_extractor")


@dataclass(frozen=True)
class ModelFolder:
    """A model folder (``student.safetensors``) or a run folder (``student/weights.safetensors``)."""

    path: Path
    description: dict[str, Any]

    @classmethod
    def open(cls, source: str | Path) -> ModelFolder:
        """Returns the folder of a bundled name, a path or ``hf://org/name``.

        Raises ValueError when there is none, when its ``model.json`` is missing, of a newer format or of other keys and
        types than ``Description``, and when it is a link out of the folder.
        """
        path = find_folder(source)
        file = _within(path / MODEL_FILE, path)
        try:
            description = read_json(file)
        except FileNotFoundError as error:
            raise ValueError(
                f"{path} holds no {MODEL_FILE}, so it is no model or run folder; train or export a model into it"
            ) from error
        except OSError as error:
            raise ValueError(f"{file} cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise ValueError(f"{error}; export the model again") from error
        return cls(path, checked(description, file))

    def redescribe(self, change: Callable[[dict[str, Any]], Mapping[str, Any]]) -> None:
        """Writes ``model.json`` with the keys that ``change`` gives for what stands there now.

        It is read anew, so that nothing is lost which was written since this folder was opened; ``description`` stays
        as it was.
        """
        written = ModelFolder.open(self.path).description
        text = json.dumps({**written, **change(written)}, indent=2, ensure_ascii=False)
        weights.write_whole(self.path / MODEL_FILE, f"{text}\n".encode())

    @property
    def is_run(self) -> bool:
        """Whether this is a run folder, as training leaves it."""
        return (self.path / "autoencoder").is_dir()

    def file(self, name: str) -> Path:
        """Where the weights of a network, or the ``reference`` statistics, are or would be.

        ``reference-NAME`` are those of features that a named network makes.
        """
        exported = _within(self.path / f"{name}.safetensors", self.path)
        if exported.exists() or not self.is_run:
            return exported
        if name == "reference":
            return _within(self.path / "feature_extractor" / "reference.safetensors", self.path)
        if name.startswith("reference-"):
            return _within(self.path / "evaluation" / f"{name}.safetensors", self.path)
        return _within(self.path / name / "weights.safetensors", self.path)

    def has(self, name: str) -> bool:
        """Whether the folder holds a network, or the ``reference`` statistics."""
        return self.file(name).is_file()

    def read(self, name: str) -> weights.Component:
        """The weights of a network; ValueError that lists the networks there are when it is not among them."""
        if not self.has(name):
            if name == "reference":
                raise ValueError(
                    f"{self.path} holds no reference statistics, which figures are measured against; export it again "
                    "from its run folder on a machine that has the recipe's data (scm-media export RUN DIR)"
                )
            there = ", ".join(network for network in NETWORKS if self.has(network)) or "none"
            raise ValueError(f"{self.path} holds no {name} (it has: {there}); train that stage, or export with it")
        return weights.read(self.file(name))

    @property
    def action_bank_file(self) -> Path:
        """Where the rows of numbers of some training examples are, in a folder whose model takes such."""
        return _within(self.path / "action_bank.safetensors", self.path)

    def recipe(self) -> dict[str, Any] | None:
        """Returns what ``recipe.yaml`` holds, None where there is none; ValueError where it holds no recipe.

        It is read as plain values: interpolations in it stay as they are written.
        """
        file = _within(self.path / RECIPE_FILE, self.path)
        if not file.is_file():
            return None
        return read_yaml(file)

    def metrics(self) -> dict[str, Any] | None:
        """Returns the figures of ``metrics.json``, None when the model was not evaluated."""
        return self._figures("metrics.json")

    def second_opinions(self) -> dict[str, dict[str, Any]]:
        """Returns the figures in other networks' features: those of every ``metrics-NAME.json`` by file name."""
        names = sorted(file.name for file in self.path.glob("metrics-*.json") if PLAIN_NAME.fullmatch(file.name))
        return {name: figures for name in names if (figures := self._figures(name)) is not None}

    def memorization(self) -> dict[str, Any] | None:
        """Returns how near samples come to training data, of ``memorization.json``; None when that was not measured."""
        return self._figures("memorization.json")

    def _figures(self, name: str) -> dict[str, Any] | None:
        file = _within(self.path / name, self.path)
        if not file.is_file():
            return None
        figures = read_json(file)
        if not isinstance(figures, dict):
            raise ValueError(f"{file} holds no figures; evaluate the model again")
        return figures


def _within(file: Path, folder: Path) -> Path:
    """Returns a file of a model's folder; ValueError for one that is a link out of it.

    A model that was downloaded by the Hugging Face hub consists of links from ``snapshots/REVISION`` to ``blobs``
    beside it, and these are taken.
    """
    root = folder.resolve()
    if root.parent.name == "snapshots" and (root.parent.parent / "blobs").is_dir():
        root = root.parent.parent
    if not file.resolve().is_relative_to(root):
        raise ValueError(f"{file} is a link out of the model's folder; put the file itself in its place")
    return file

"""The folder of a model: its description, its weight files and its figures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scm_media import weights
from scm_media.pipeline.description import MODEL_FILE, ModelDescription
from scm_media.pipeline.hub import PLAIN_NAME, find_folder
from scm_media.reading import read_json, read_yaml

RECIPE_FILE = "recipe.yaml"
PROMPTS_FILE = "prompts.safetensors"
NETWORKS = ("autoencoder", "teacher", "guide", "student", "feature_extractor")
METRICS_FILE, MEMORIZATION_FILE = "metrics.json", "memorization.json"
CURVE_SUFFIX = "-curve"
"""The end of the name of a curve's figures, beside those of an ordinary evaluation of the same model."""


@dataclass(frozen=True)
class ModelFolder:
    """A model folder (``student.safetensors``) or a run folder (``student/weights.safetensors``)."""

    path: Path
    description: ModelDescription

    @classmethod
    def open(cls, source: str | Path) -> ModelFolder:
        """Returns the folder of a bundled name, a path or ``hf://org/name``, or the model in a single file.

        Raises ValueError when there is none, when its ``model.json`` is missing, of another format or not a
        ``ModelDescription``, when it is a link out of the folder, and as ``ModelFile.open_file``.
        """
        if (file := Path(source).expanduser()).is_file():
            from scm_media.pipeline.model_file import ModelFile  # which derives from this class

            return ModelFile.open_file(file)
        path = find_folder(source)
        return cls(path, ModelDescription.from_json(read_description(path), path / MODEL_FILE))

    def redescribe(self, change: Callable[[ModelDescription], ModelDescription]) -> None:
        """Writes ``model.json`` as ``change`` returns it for the description that stands there now.

        The file is read again, so that nothing is lost that was written since this folder was opened; ``description``
        stays the same.
        """
        change(ModelFolder.open(self.path).description).write(self.path)

    @property
    def is_run(self) -> bool:
        """Returns true for a run folder, as training leaves it."""
        return (self.path / "autoencoder").is_dir()

    def file(self, name: str) -> Path:
        """Returns the path of a network's weights or of the ``reference`` statistics, whether it exists or not.

        ``reference-NAME`` are the statistics in the features of another network, ``action_bank`` and ``prompts`` what
        models with actions and prompts have.
        """
        exported = file_within(self.path, f"{name}.safetensors")
        if exported.exists() or not self.is_run:
            return exported
        if name == "reference":
            return file_within(self.path, "feature_extractor/reference.safetensors")
        if name.startswith("reference-"):
            return file_within(self.path, f"evaluation/{name}.safetensors")
        return file_within(self.path, f"{name}/weights.safetensors")

    def has(self, name: str) -> bool:
        """Returns true when the folder holds the file of a name, as ``file`` takes it."""
        return self.file(name).is_file()

    def read(self, name: str, check: bool = True) -> weights.Component:
        """Returns the weights of a network; raises ValueError, with the networks that the folder has, for no file.

        check: compares them with their digest, as ``weights.read``.
        """
        if not self.has(name):
            if name == "reference":
                raise ValueError(
                    f"{self.path} holds no reference statistics, which figures are measured against; export it again "
                    "from its run folder on a machine that has the recipe's data (scm-media export RUN DIR)"
                )
            there = ", ".join(network for network in NETWORKS if self.has(network)) or "none"
            raise ValueError(f"{self.path} holds no {name} (it has: {there}); {self._remedy(name)}")
        return self._component(name, check)

    def _remedy(self, name: str) -> str:
        """Returns what to do where a network is missing."""
        if name == "feature_extractor":
            return (
                "figures are measured in one, which learns from the data's classes: train with classes and a "
                "feature_extractor, or name another network (--features efficientnet-lite0 for pictures)"
            )
        if self.is_run and not self.has("student"):
            return "its training is not done: the scm-media train command that began it goes on"
        return "train that stage, or export with it"

    def _component(self, name: str, check: bool) -> weights.Component:
        return weights.read(self.file(name), check)

    def named_references(self) -> list[str]:
        """Returns ``reference-NAME`` of each other network that the model has statistics of."""
        folder = self.path / "evaluation" if self.is_run else self.path
        found = sorted(file.stem for file in folder.glob("reference-*.safetensors") if file.is_file())
        return [name for name in found if PLAIN_NAME.fullmatch(name)]

    @property
    def action_bank_file(self) -> Path:
        """Returns the path of the action bank, which a model with actions has."""
        return file_within(self.path, "action_bank.safetensors")

    @property
    def prompts_file(self) -> Path:
        """Returns the path of the prompts' embeddings, which a model of another framework's text network has."""
        return file_within(self.path, PROMPTS_FILE)

    def recipe(self) -> dict[str, Any] | None:
        """Returns the mapping in ``recipe.yaml``, None without the file; raises ValueError for anything but a mapping.

        Interpolations in it stay text.
        """
        file = file_within(self.path, RECIPE_FILE)
        return read_yaml(file) if file.is_file() else None

    def metrics(self) -> dict[str, Any] | None:
        """Returns the figures of ``metrics.json``, None when the model was not evaluated."""
        return self._figures(METRICS_FILE)

    def second_opinions(self) -> dict[str, dict[str, Any]]:
        """Returns the figures beside the first ones: those of every ``metrics-NAME.json`` by file name.

        They are in another network's features, or a curve's (``CURVE_SUFFIX``).
        """
        names = sorted(name for name in self._figure_names() if is_second_opinion(name))
        return {name: figures for name in names if (figures := self._figures(name)) is not None}

    def memorization(self) -> dict[str, Any] | None:
        """Returns how near samples come to training data (``memorization.json``), None when it was not measured."""
        return self._figures(MEMORIZATION_FILE)

    def all_figures(self) -> dict[str, dict[str, Any]]:
        """Returns the figures of every file that has some, by the file's name."""
        named = {METRICS_FILE: self.metrics(), **self.second_opinions(), MEMORIZATION_FILE: self.memorization()}
        return {name: figures for name, figures in named.items() if figures is not None}

    def _figure_names(self) -> list[str]:
        return [file.name for file in self.path.glob("*.json")]

    def _figures(self, name: str) -> dict[str, Any] | None:
        file = file_within(self.path, name)
        if not file.is_file():
            return None
        figures = read_json(file)
        if not isinstance(figures, dict):
            raise ValueError(f"{file} holds no figures; evaluate the model again")
        return figures


def is_second_opinion(name: str) -> bool:
    """Returns whether a file of this name holds figures in another network's features, or a curve's."""
    return name.startswith("metrics-") and name.endswith(".json") and PLAIN_NAME.fullmatch(name) is not None


def read_description(folder: Path) -> Any:
    """Returns the JSON value of a folder's ``model.json``, of any format.

    Raises ValueError when the file is missing, cannot be read, holds no JSON or is a link out of the folder.
    """
    file = file_within(folder, MODEL_FILE)
    try:
        return read_json(file)
    except FileNotFoundError as error:
        raise ValueError(
            f"{folder} holds no {MODEL_FILE}, so it is no model or run folder; train or export a model into it"
        ) from error
    except OSError as error:
        raise ValueError(f"{file} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ValueError(f"{error}; export the model again") from error


def file_within(folder: Path, name: str) -> Path:
    """Returns a file of a model's folder; raises ValueError for a link out of the folder.

    A model that was downloaded by the Hugging Face hub consists of links from ``snapshots/REVISION`` to ``blobs``
    beside it; these are accepted.
    """
    file, root = folder / name, folder.resolve()
    if root.parent.name == "snapshots" and (root.parent.parent / "blobs").is_dir():
        root = root.parent.parent
    if not file.resolve().is_relative_to(root):
        raise ValueError(f"{file} is a link out of the model's folder; put the file itself in its place")
    return file

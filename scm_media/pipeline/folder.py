"""The folder that a model lives in: what it says about itself, and its weight files."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scm_media import weights
from scm_media.pipeline.sources import MODEL_FILE, find_folder

FORMAT = 1
REQUIRED = ("name", "modality", "flow", "sampler", "labels", "label_counts", "sample_shape", "latent_shape")
NETWORKS = ("autoencoder", "teacher", "guide", "student", "embedder")


@dataclass(frozen=True)
class ModelFolder:
    """A model folder (``student.safetensors``) or a run folder (``student/weights.safetensors``)."""

    path: Path
    description: dict[str, Any]

    @classmethod
    def open(cls, source: str | Path) -> ModelFolder:
        """The folder of a bundled name, a path or ``hf://org/name``.

        Raises ValueError when there is none, or its ``model.json`` is missing, incomplete or of a newer format.
        """
        path = find_folder(source)
        file = path / MODEL_FILE
        try:
            description = json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise ValueError(
                f"{path} holds no {MODEL_FILE}, so it is no model or run folder; train or export a model into it"
            ) from error
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"{file} is no valid JSON ({error}); export the model again") from error
        if not isinstance(description, dict) or (missing := [key for key in REQUIRED if key not in description]):
            raise ValueError(f"{file} lacks {', '.join(missing) if isinstance(description, dict) else 'an object'}")
        if description.get("format", FORMAT) > FORMAT:
            raise ValueError(
                f"{file} has format {description['format']}, this version reads {FORMAT}; update scm-media"
            )
        return cls(path, description)

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
        exported = self.path / f"{name}.safetensors"
        if exported.exists() or not self.is_run:
            return exported
        if name == "reference":
            return self.path / "embedder" / "reference.safetensors"
        if name.startswith("reference-"):
            return self.path / "evaluation" / f"{name}.safetensors"
        return self.path / name / "weights.safetensors"

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
    def recorded_file(self) -> Path:
        """Where the rows of numbers of some training examples are, in a folder whose model takes such."""
        return self.path / "recorded.safetensors"

    def metrics(self) -> dict[str, Any] | None:
        """The figures of ``metrics.json``, None when the model was not evaluated."""
        file = self.path / "metrics.json"
        return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None

    def second_opinions(self) -> list[dict[str, Any]]:
        """The figures in other networks' features: of every ``metrics-NAME.json``, by name."""
        files = sorted(self.path.glob("metrics-*.json"))
        return [json.loads(file.read_text(encoding="utf-8")) for file in files]

    def nearest(self) -> dict[str, Any] | None:
        """How near samples come to training data: the figures of ``nearest.json``, None when that was not measured."""
        file = self.path / "nearest.json"
        return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None

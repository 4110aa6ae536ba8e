"""The model that a teacher is taken from: one of ours, or a pipeline that diffusers saved."""

from __future__ import annotations

from pathlib import Path

from scm_media.adapters import DiffusersFolder
from scm_media.adapters.loading import INDEX
from scm_media.pipeline.hub import find_folder
from scm_media.pipeline.model_folder import ModelFolder

TeacherSource = ModelFolder | DiffusersFolder


def open_teacher_source(source: str) -> TeacherSource:
    """Returns the model of a bundled name, a folder, a file or ``hf://org/name``, of ours or of diffusers.

    Raises ValueError when there is none, when it has no teacher, and as ``ModelFolder.open`` and ``DiffusersFolder``.
    """
    path = file if (file := Path(source).expanduser()).is_file() else find_folder(source)
    found = DiffusersFolder(path) if (path / INDEX).is_file() else ModelFolder.open(path)
    for name in ("teacher", "autoencoder"):
        if not found.has(name):
            raise ValueError(f"teacher_from {source}: {path} holds no {name}; export the model with its teacher")
    return found

"""A ComfyUI with tiny models of the three modalities."""

from __future__ import annotations

import shutil

import pytest

from scm_media.pipeline import ModelFolder
from scm_media.pipeline.model_file import export_file
from tests.integrations.comfyui_stub import install
from tests.integrations.graphs import KINDS
from tests.pipeline.tiny_media import write_tiny


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    """The three tiny models as single files, by kind."""
    root = tmp_path_factory.mktemp("files")
    return {
        kind: export_file(ModelFolder.open(write_tiny(kind, root / kind)), root / f"{kind}.safetensors", teacher=True)
        for kind in KINDS
    }


@pytest.fixture
def comfy(monkeypatch, tmp_path, files):
    """A ComfyUI with the three models."""
    made = install(monkeypatch, tmp_path)
    for kind, file in files.items():
        shutil.copy(file, made.models / f"{kind}.safetensors")
    return made

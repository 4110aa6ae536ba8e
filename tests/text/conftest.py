"""Tiny text models in folders, one of each kind."""

from __future__ import annotations

import pytest
import torch

from tests.text.tiny import CLASSES, save_model


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """Returns the folder and the model of each kind."""
    torch.manual_seed(0)
    root = tmp_path_factory.mktemp("text-models")
    return {kind: (root / kind, save_model(kind, root / kind)) for kind in CLASSES}


@pytest.fixture
def folder(tmp_path):
    """Returns a folder with a BERT-like encoder that a test may damage."""
    save_model("bert", tmp_path / "model")
    return tmp_path / "model"

"""A tiny model folder with real networks, never trained: its outputs are functions of noise, label and time."""

from __future__ import annotations

import pytest

from tests.pipeline.tiny import write_tiny_model


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny")

"""A tiny model folder with real networks, never trained."""

from __future__ import annotations

import pytest

from tests.pipeline.tiny import write_tiny_model


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> str:
    return str(write_tiny_model(tmp_path_factory.mktemp("models") / "tiny"))

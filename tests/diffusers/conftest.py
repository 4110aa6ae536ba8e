"""Models of each modality, exported for diffusers and opened by it."""

from __future__ import annotations

import pytest

from scm_media.cli import main
from tests.diffusers.models import WRITERS


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    """Returns the model folder and the exported one of a kind of samples, made once."""
    made = {}

    def export(kind):
        if kind not in made:
            place = tmp_path_factory.mktemp(kind)
            model, target = WRITERS[kind](place / "model"), place / "exported"
            assert main(["export", str(model), str(target), "--format", "diffusers"]) == 0
            made[kind] = model, target
        return made[kind]

    return export

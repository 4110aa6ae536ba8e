"""A compiled pipeline makes the same samples."""

from __future__ import annotations

import pytest
import torch

from scm_media import load
from scm_media.pipeline import loaded_model
from tests.pipeline.tiny import write_tiny_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.mark.slow
def test_compiled_networks_make_the_same_samples(folder):
    eager, compiled = load(folder), load(folder).compile(teacher=True)
    for arguments in ({"steps": 2}, {"teacher": True, "steps": 3}):
        made, expected = (pipeline(3, seed=1, **arguments) for pipeline in (compiled, eager))
        torch.testing.assert_close(made.samples, expected.samples, rtol=1e-4, atol=1e-4)
        assert made.evaluations == expected.evaluations


def test_compile_takes_the_students_networks_alone_unless_asked(folder, monkeypatch):
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **how: compiled.append((type(self).__name__, how)))
    monkeypatch.setattr(
        loaded_model.torch, "compile", lambda function, **how: compiled.append(("decode", how)) or function
    )
    pipeline = load(folder).compile()
    assert [name for name, _ in compiled] == [type(pipeline.network("student")).__name__, "decode"]
    assert all(how == {"dynamic": False, "mode": None} for _, how in compiled)
    assert pipeline.compile(teacher=True) is pipeline
    assert len(compiled) == 2 + sum(pipeline.folder.has(name) for name in ("teacher", "guide"))
    assert pipeline(1, seed=0).samples.isfinite().all()

"""The script's float32 is exact, its bf16 is not, and its gradient is the loss's."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import torch

import scm_media
from tests.pipeline.tiny import write_tiny_model

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("tangent_precision")


@pytest.fixture
def setting(script, tmp_path):
    return script.draw_latents(scm_media.load(write_tiny_model(tmp_path / "tiny"), "cpu"), 12)


@pytest.mark.parametrize("time", [0.1, 1.1])
def test_parts_in_float32_are_exact_and_the_rest_are_not(script, setting, time):
    x0, networks = setting
    found = script.errors(networks, x0, time)
    assert list(found) == list(script.VARIANTS)
    assert found["all float32"] < 1e-4
    assert all(error > 10 * found["all float32"] for name, error in found.items() if name != "all float32")
    assert found["last layers"] != found["all bf16"]
    assert "forward" not in vars(networks.student.patch_out), "the last layers were not put back"


def test_gradients_are_the_losses_and_rows_are_wide_where_they_say(script, setting):
    x0, networks = setting
    t = torch.linspace(0.1, 1.5, 12)
    narrow = script.gradient_errors(networks, x0, t, below=0.0)
    wide = script.gradient_errors(networks, x0, t, below=10.0)
    assert narrow["samples at t < 0"] == narrow["nothing"]
    assert narrow["nothing"][0] > 1e-3
    assert wide["samples at t < 10"][0] < 1e-6
    assert wide["g of all samples"][0] < wide["nothing"][0]

    loss = networks.loss
    z = torch.randn_like(x0) * 0.5
    F, g = script.tangent(networks, x0, z, t, frozenset(script.PARTS))
    ours = torch.autograd.grad((-2 * F * loss.normalize(g, None)).mean(), networks.student.patch_out.weight)[0]
    loss.draw = lambda _: (z, t)
    value, _ = loss(x0, networks.student_cond, torch.tensor(10_000))
    theirs = torch.autograd.grad(value, networks.student.patch_out.weight)[0]
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-7)

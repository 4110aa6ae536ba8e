"""The fused tangent of attention: its tests in Triton's interpreter, and when it is chosen."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from scm_media import attention_kernel
from scm_media.attention_kernel import serves

pytest.importorskip("triton")


@pytest.mark.parametrize("part", ["any_length", pytest.param("not any_length", marks=pytest.mark.slow)])
def test_the_kernel_is_right_in_the_interpreter(part):
    file = Path(__file__).parent / "interpreted" / "attention.py"
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(file), "-k", part]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    environment.pop("PYTEST_XDIST_WORKER", None)
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout and "skipped" not in done.stdout


def on_gpu(shape, dtype=torch.float32):
    return SimpleNamespace(is_cuda=True, ndim=len(shape), shape=torch.Size(shape), dtype=dtype)


@pytest.mark.parametrize(
    ("change", "served"),
    [
        ({}, True),
        ({"mask": torch.ones(2, 1, 1, 50, dtype=torch.bool)}, True),
        ({"mask": torch.ones(2, 1, 40, 50, dtype=torch.bool)}, False),
        ({"mask": torch.zeros(2, 1, 1, 50)}, False),
        ({"query": (on_gpu((2, 3, 40, 32)), None)}, False),
        ({"query": (torch.zeros(2, 3, 40, 32), torch.zeros(2, 3, 40, 32))}, False),
        ({"query": (on_gpu((3, 40, 32)), 1)}, False),
        ({"query": (on_gpu((2, 3, 40, 512)), 1)}, False),
        ({"query": (on_gpu((2, 3, 40, 32), torch.float64), 1)}, False),
        ({"key": (on_gpu((2, 1, 50, 32)), 1)}, False),
    ],
)
def test_it_serves_heads_on_a_gpu_with_masks_of_keys(change, served, monkeypatch):
    given = {"query": (on_gpu((2, 3, 40, 32)), 1), "key": (on_gpu((2, 3, 50, 32)), 1), "mask": None}
    given |= {"value": given["key"], **change}
    assert serves(**given) == served
    monkeypatch.setattr(attention_kernel, "ENABLED", False)
    assert not serves(**given)

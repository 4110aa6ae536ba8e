"""The fused tangent of attention in Triton's interpreter, against float64.

tests/test_attention_kernel.py runs this file in a process of its own: the interpreter must be on before Triton is
imported for the first time.
"""

from __future__ import annotations

import math

import pytest
import torch

from scm_media import attention_tangent
from scm_media.attention_kernel import kernel_tangent

TOLERANCES = {torch.float32: 1e-6, torch.float16: 2e-3, torch.bfloat16: 2e-2}


def heads(length, keys, width, value_width, dtype):
    generator = torch.Generator().manual_seed(length + width)
    shapes = [(length, width), (keys, width), (keys, value_width)]
    return [tuple(torch.randn(2, 3, *shape, generator=generator).to(dtype) for _ in range(2)) for shape in shapes]


def attention(given, mask, causal):
    """The output of attention in float64."""
    q, k, v = (pair[0].double() for pair in given)
    scores = q @ k.mT / math.sqrt(q.shape[-1])
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf)
    if causal:
        scores = scores.masked_fill(~torch.ones(scores.shape[-2:], dtype=torch.bool).tril(), -math.inf)
    return scores.softmax(-1) @ v


def error(given, mask=None, causal=False):
    """The relative error of the kernel's tangent."""
    out, scale = attention(given, mask, causal), 1 / math.sqrt(given[0][0].shape[-1])
    wide = [(x.double(), None if dx is None else dx.double()) for x, dx in given]
    exact = attention_tangent.attention_tangent(*wide, out, scale, mask, causal)
    found = kernel_tangent(*given, out.to(given[0][0].dtype), scale, mask, causal)
    assert found.dtype == given[0][0].dtype
    return ((found.double() - exact).norm() / exact.norm()).item()


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("dtype", TOLERANCES)
def test_masks_and_types(masked, causal, dtype):
    keys = 70
    generator = torch.Generator().manual_seed(0)
    seen = (torch.rand(2, 1, 1, keys, generator=generator) < 0.7) | (torch.arange(keys) == 0)
    given = heads(70, keys, 32, 32, dtype)
    assert error(given, seen if masked else None, causal) < TOLERANCES[dtype]


@pytest.mark.parametrize(("length", "keys"), [(1, 1), (5, 200), (129, 33), (64, 64)])
def test_any_length_of_queries_and_keys(length, keys):
    assert error(heads(length, keys, 32, 32, torch.float32)) < 1e-6


@pytest.mark.parametrize(("width", "value_width"), [(8, 8), (40, 24), (64, 128), (96, 96), (256, 256)])
def test_any_width_of_heads(width, value_width):
    assert error(heads(40, 50, width, value_width, torch.float32)) < 1e-6


@pytest.mark.parametrize("without", [(1,), (2,), (1, 2)])
def test_keys_and_values_without_a_tangent(without):
    given = [
        (x, None if place in without else dx) for place, (x, dx) in enumerate(heads(40, 50, 32, 32, torch.float32))
    ]
    assert error(given) < 1e-6


def test_heads_that_lie_between_one_another_in_memory():
    given = [
        tuple(x.transpose(1, 2).contiguous().transpose(1, 2) for x in pair)
        for pair in heads(40, 50, 32, 32, torch.float32)
    ]
    assert not given[0][0].is_contiguous()
    assert error(given) < 1e-6


def test_rows_that_see_no_key_have_no_tangent():
    given = heads(40, 50, 32, 32, torch.float32)
    mask = torch.zeros(2, 1, 1, 50, dtype=torch.bool)
    found = kernel_tangent(*given, torch.zeros(2, 3, 40, 32), 0.1, mask)
    assert not found.any()


def test_the_tangent_of_attention_is_the_kernels_where_it_serves(monkeypatch):
    given = heads(40, 50, 32, 32, torch.float32)
    out = attention(given, None, False).float()
    expected = attention_tangent.attention_tangent(*given, out, 0.2)
    monkeypatch.setattr(attention_tangent, "serves", lambda *_: True)
    called = []
    monkeypatch.setattr(
        attention_tangent, "kernel_tangent", lambda *arguments: called.append(1) or kernel_tangent(*arguments)
    )
    torch.testing.assert_close(attention_tangent.attention_tangent(*given, out, 0.2), expected)
    assert called

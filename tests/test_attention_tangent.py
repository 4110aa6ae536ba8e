"""The tangent of attention in blocks is that of the whole matrix, and holds a part of it at a time."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as nnf

from scm_media import attention_tangent as module
from scm_media.attention_tangent import attention_tangent
from scm_media.evaluation.memory import MemoryCounter
from scm_media.nn.attention import attend
from scm_media.nn.dual import DualTensor

LENGTH, KEYS, WIDTH = 70, 50, 4


def pairs(keys=KEYS, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    shapes = [(2, 3, LENGTH, WIDTH), (2, 3, keys, WIDTH), (2, 3, keys, 6)]
    return [tuple(torch.randn(shape, generator=generator, dtype=dtype) for _ in range(2)) for shape in shapes]


def masks(kind):
    generator = torch.Generator().manual_seed(1)
    if kind == "keys":
        return torch.rand(2, 1, 1, KEYS, generator=generator) < 0.7
    if kind == "pairs":
        return (torch.rand(LENGTH, KEYS, generator=generator) < 0.7) | (torch.arange(KEYS) == 0)
    return torch.randn(1, 3, LENGTH, KEYS, generator=generator, dtype=torch.float64) if kind == "added" else None


def by_forward_mode(query, key, value, **options):
    """The output and its tangent by PyTorch's forward mode, on the plain expression."""

    def plain(q, k, v):
        scores = q @ k.mT / math.sqrt(WIDTH)
        mask = options.get("mask")
        if options.get("causal"):
            mask = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
        if mask is not None:
            scores = scores.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else scores + mask
        return scores.softmax(-1) @ v

    tangents = tuple(torch.zeros_like(x) if dx is None else dx for x, dx in (query, key, value))
    return torch.func.jvp(plain, tuple(x for x, _ in (query, key, value)), tangents)


@pytest.mark.parametrize("kind", [None, "keys", "pairs", "added", "causal"])
@pytest.mark.parametrize("num_scores", [1, 1 << 20])
def test_blocks_have_the_tangent_of_forward_mode(kind, num_scores, monkeypatch):
    monkeypatch.setitem(module.NUM_SCORES, "cpu", num_scores)
    options = {"causal": True} if kind == "causal" else {"mask": masks(kind)}
    given = pairs()
    out, expected = by_forward_mode(*given, **options)
    torch.testing.assert_close(attention_tangent(*given, out, 1 / math.sqrt(WIDTH), **options), expected)


@pytest.mark.parametrize("without", [(0,), (1,), (2,), (0, 1), (1, 2), (0, 2)])
def test_what_has_no_tangent_adds_none(without, monkeypatch):
    monkeypatch.setitem(module.NUM_SCORES, "cpu", 1)
    given = [(x, None if place in without else dx) for place, (x, dx) in enumerate(pairs())]
    out, expected = by_forward_mode(*given)
    torch.testing.assert_close(attention_tangent(*given, out, 1 / math.sqrt(WIDTH)), expected)


def test_the_softmax_is_wide_for_narrow_numbers():
    narrow = pairs(dtype=torch.bfloat16)
    wide = [tuple(x.double() for x in pair) for pair in narrow]
    out, expected = by_forward_mode(*wide)
    found = attention_tangent(*narrow, out.bfloat16(), 1 / math.sqrt(WIDTH))
    assert found.dtype == torch.bfloat16
    assert (found.double() - expected).norm() < 0.02 * expected.norm()


def test_long_sequences_never_hold_the_matrix_of_all_pairs(monkeypatch):
    length, shape = 4096, (1, 2, 4096, 32)
    given = [tuple(torch.empty(shape, device="meta") for _ in range(2))] * 3
    peaks = []
    for num_scores in (1 << 20, 1 << 40):
        monkeypatch.setitem(module.NUM_SCORES, "cuda", num_scores)  # as for any device but the CPU
        with MemoryCounter() as counter:
            attention_tangent(*given, given[0][0], 0.1)
        peaks.append(counter.peak)
    matrix = 2 * length * length * 4
    assert peaks[0] < matrix / 4 and peaks[1] > 2 * matrix


def test_attention_of_many_keys_carries_the_same_tangent_as_of_few(monkeypatch):
    given = [DualTensor(x, dx) for x, dx in pairs()]
    few = attend(*given)
    monkeypatch.setattr("scm_media.nn.attention.SHORT", 8)
    monkeypatch.setitem(module.NUM_SCORES, "cpu", 1)
    many = attend(*given)
    torch.testing.assert_close(many.tangent, few.tangent)
    torch.testing.assert_close(many.value, few.value)
    assert not many.tangent.requires_grad


def test_a_compiled_call_has_few_blocks(monkeypatch):
    monkeypatch.setitem(module.NUM_SCORES, "cpu", 1)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    called = []
    plain = module._block
    monkeypatch.setattr(module, "_block", lambda *given: called.append(1) or plain(*given))
    given = [tuple(x.repeat(1, 1, 10, 1) for x in pair) for pair in pairs()]
    out = nnf.scaled_dot_product_attention(*(x for x, _ in given))
    attention_tangent(*given, out, 1 / math.sqrt(WIDTH))
    assert len(called) <= module.MOST_COMPILED

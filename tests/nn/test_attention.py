from __future__ import annotations

import pytest
import torch

from scm_media.nn.attention import SelfAttention, attend, rotate
from scm_media.nn.dual import DualTensor
from scm_media.nn.embedding import rotary_angles
from tests.nn.test_dual import by_differences, check, pair

CPU = torch.device("cpu")
EXTENTS = [(6,), (2, 3), (2, 3, 2)]


@pytest.mark.parametrize("masked", [False, True])
def test_attention_carries_the_tangent(masked):
    mask = torch.tensor([[True, True, False, True, False], [True] * 5]) if masked else None
    heads = [pair(2, 3, 5, 4, seed=seed) for seed in range(3)]
    check(lambda q, k, v: attend(q, k, v, mask), *heads)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("short", [0, 512])
def test_plain_keys_and_values_have_no_tangent(masked, short, monkeypatch):
    monkeypatch.setattr("scm_media.nn.attention.SHORT", short)
    mask = torch.tensor([[True, True, False, True, False, True], [True] * 6]) if masked else None
    k, v = (torch.randn(2, 3, 6, 4, generator=torch.Generator().manual_seed(s), dtype=torch.float64) for s in (1, 2))
    check(lambda q: attend(q, k, v, mask), pair(2, 3, 5, 4))
    q = pair(2, 3, 5, 4)
    zeros = (DualTensor(x, torch.zeros_like(x)) for x in (k, v))
    torch.testing.assert_close(attend(q, k, v, mask).tangent, attend(q, *zeros, mask).tangent)


def test_masked_keys_change_nothing():
    q, k, v = (torch.randn(2, 3, 5, 4, generator=torch.Generator().manual_seed(s)) for s in range(3))
    mask = torch.tensor([True, True, True, False, False]).expand(2, 5)
    torch.testing.assert_close(attend(q, k, v, mask), attend(q, k[:, :, :3], v[:, :, :3]))


@pytest.mark.parametrize("sizes", EXTENTS)
def test_rotation_keeps_lengths_and_carries_the_tangent(sizes):
    angles = rotary_angles(sizes, 12, CPU)
    x = pair(2, 3, angles.shape[0], 12)
    torch.testing.assert_close(rotate(x.value, angles).norm(dim=-1), x.value.norm(dim=-1))
    check(lambda v: rotate(v, angles), x)


@pytest.mark.parametrize("sizes", EXTENTS)
def test_scores_depend_on_the_difference_of_positions_alone(sizes):
    shape = [size_option + 1 for size_option in sizes]
    angles = rotary_angles(shape, 12, CPU).double().reshape(*shape, 6)
    q, k = (torch.randn(12, generator=torch.Generator().manual_seed(s), dtype=torch.float64) for s in range(2))

    def score(i, j):
        return (rotate(q[None], angles[i][None]) * rotate(k[None], angles[j][None])).sum()

    origin, far = (0,) * len(sizes), tuple(size_option - 1 for size_option in sizes)
    ones = (1,) * len(sizes)
    shifted = tuple(size_option for size_option in sizes)
    torch.testing.assert_close(score(origin, far), score(ones, shifted), rtol=1e-5, atol=1e-5)
    assert (score(origin, far) - score(origin, origin)).abs() > 1e-3


@pytest.mark.parametrize("sizes", EXTENTS)
def test_every_axis_turns_the_heads(sizes):
    angles = rotary_angles(sizes, 12, CPU).reshape(*sizes, 6)
    for axis in range(len(sizes)):
        index = [0] * len(sizes)
        index[axis] = 1
        assert (angles[tuple(index)] - angles[(0,) * len(sizes)]).abs().max() == pytest.approx(1.0)


def test_a_head_too_narrow_for_its_axes_is_refused():
    with pytest.raises(ValueError, match="too narrow for 3 axes"):
        rotary_angles((2, 2, 2), 4, CPU)


@pytest.mark.parametrize("sizes", EXTENTS)
def test_self_attention_carries_the_tangent(sizes):
    torch.manual_seed(0)
    layer = SelfAttention(24, 2).double()
    angles = rotary_angles(sizes, 12, CPU)
    x = pair(2, angles.shape[0], 24)
    out = layer(x, angles)
    _, tangent = by_differences(lambda v: layer(v, angles), x)
    torch.testing.assert_close(out.tangent, tangent, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(out.value, layer(x.value, angles))


def test_queries_and_keys_are_normalised():
    torch.manual_seed(0)
    layer = SelfAttention(16, 2).double()
    angles = rotary_angles((6,), 8, CPU)
    x = torch.randn(2, 6, 16, dtype=torch.float64)
    before = layer(x, angles)
    with torch.no_grad():
        layer.qkv.weight[:32] *= 100
    torch.testing.assert_close(layer(x, angles), before, rtol=1e-3, atol=1e-3)


def test_the_softmax_of_the_tangent_is_float32_under_bfloat16():
    q, k, v = (pair(1, 1, 64, 8, seed=s) for s in range(3))
    exact = attend(q, k, v).tangent
    low = attend(*(DualTensor(x.value.bfloat16(), x.tangent.bfloat16()) for x in (q, k, v))).tangent
    assert (low.double() - exact).norm() < 0.02 * exact.norm()


@pytest.mark.parametrize(("width", "heads"), [(10, 3), (6, 2)])
def test_widths_that_do_not_split_are_refused(width, heads):
    with pytest.raises(ValueError, match="num_heads"):
        SelfAttention(width, heads)

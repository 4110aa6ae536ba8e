from __future__ import annotations

import pytest
import torch
from torch.utils import _pytree

from scm_media.nn.dual import (
    Dropout,
    DualTensor,
    Linear,
    add,
    apply_linear,
    concatenate,
    jvp_op,
    multiply,
    silu,
    value_of,
)


def pair(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    value, tangent = (torch.randn(*shape, generator=generator, dtype=torch.float64) for _ in range(2))
    return DualTensor(value.requires_grad_(), tangent)


def by_differences(function, *inputs, h=1e-3):
    """Value and tangent of a function of signals, the tangent by central differences of fourth order."""
    with torch.no_grad():

        def at(k):
            return function(*(x.value + k * h * x.tangent if isinstance(x, DualTensor) else x for x in inputs))

        return at(0), (8 * (at(1) - at(-1)) - (at(2) - at(-2))) / (12 * h)


def check(function, *inputs):
    out = function(*inputs)
    value, tangent = by_differences(function, *inputs)
    assert isinstance(out, DualTensor)
    assert out.value.requires_grad
    assert not out.tangent.requires_grad
    torch.testing.assert_close(out.value, value)
    torch.testing.assert_close(out.tangent, tangent, rtol=1e-9, atol=1e-9)


PLAIN = torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(3, 4)


@pytest.mark.parametrize(
    ("function", "inputs"),
    [
        pytest.param(add, (pair(3, 4), pair(3, 4, seed=1)), id="add"),
        pytest.param(add, (pair(3, 4), PLAIN), id="add-right"),
        pytest.param(add, (PLAIN, pair(3, 1)), id="add-broadcast"),
        pytest.param(add, (pair(3, 4), pair(1, 4, seed=1)), id="add-broadcast-both"),
        pytest.param(multiply, (pair(3, 4), pair(3, 4, seed=1)), id="multiply"),
        pytest.param(multiply, (pair(3, 4), PLAIN), id="multiply-right"),
        pytest.param(multiply, (PLAIN, pair(3, 1)), id="multiply-broadcast"),
        pytest.param(silu, (pair(3, 4),), id="silu"),
        pytest.param(lambda x: apply_linear(lambda v: v.mT * 3, x), (pair(3, 4),), id="apply_linear"),
        pytest.param(lambda x: concatenate([x, PLAIN, x], 1), (pair(3, 4),), id="concatenate"),
        pytest.param(lambda x, y: jvp_op(torch.atan2, x, y), (pair(3, 4), PLAIN), id="jvp_op"),
        pytest.param(Linear(4, 5).double(), (pair(2, 3, 4),), id="Linear"),
    ],
)
def test_operations_carry_the_tangent(function, inputs):
    check(function, *inputs)


@pytest.mark.parametrize("function", [silu, Linear(4, 4).double(), Dropout(0.5), lambda x: add(x, x)])
def test_a_tensor_gives_a_tensor(function):
    assert isinstance(function(PLAIN), torch.Tensor)


def test_dropout_masks_value_and_tangent_alike():
    torch.manual_seed(0)
    dropped = Dropout(0.5).train()(DualTensor(torch.ones(1000), torch.full((1000,), 3.0)))
    assert torch.equal(dropped.tangent, 3 * dropped.value)
    assert 0.4 < (dropped.value == 0).float().mean() < 0.6
    assert set(dropped.value.unique().tolist()) == {0.0, 2.0}


def test_dropout_draws_the_same_mask_for_a_pair_as_for_a_tensor():
    layer = Dropout(0.3).train()
    torch.manual_seed(0)
    alone = layer(PLAIN)
    torch.manual_seed(0)
    assert torch.equal(layer(DualTensor(PLAIN, PLAIN)).value, alone)


def test_dropout_is_nothing_in_evaluation():
    x = pair(3, 4)
    assert Dropout(0.5).eval()(x) is x


@pytest.mark.parametrize("rate", [-0.1, 1.0])
def test_impossible_dropout_is_refused(rate):
    with pytest.raises(ValueError, match="dropout"):
        Dropout(rate)


def test_a_pair_is_a_pytree():
    doubled = _pytree.tree_map(lambda x: 2 * x, {"x": DualTensor(torch.ones(2), torch.zeros(2))})["x"]
    assert isinstance(doubled, DualTensor)
    assert value_of(doubled).tolist() == [2.0, 2.0]

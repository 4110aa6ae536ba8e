from __future__ import annotations

import pytest
import torch
from torch import nn

from scm_media.conditioning import Conditioning
from scm_media.nn.dual import DualTensor, jvp_op
from scm_media.nn.transformer import Transformer
from scm_media.tangent import value_and_tangent
from tests.oracles import SHAPES, Gaussian, Mixture

NOTHING = Conditioning()
METHODS = ["one_pass", "forward", "finite_difference"]
# Relative errors; differences of a network in float32 are at the mercy of its rounding.
BOUNDS = {
    ("one_pass", torch.float32): 1e-5,
    ("forward", torch.float32): 1e-5,
    ("finite_difference", torch.float32): 5e-3,
    ("one_pass", torch.float64): 1e-9,
    ("forward", torch.float64): 1e-9,
    ("finite_difference", torch.float64): 1e-8,
}
TIMES = [0.05, 0.4, 0.8, 1.2, 1.5]


def relative_error(actual, expected):
    return ((actual.double() - expected).norm() / expected.norm()).item()


def points(oracle, dtype):
    """(x_t, t, dx/dt) on the oracle's trajectories."""
    generator = torch.Generator().manual_seed(0)
    t = torch.tensor(TIMES, dtype=torch.float64)
    x0 = oracle.sample(len(TIMES), generator)
    x_t = oracle.flow.interpolate(x0, 0.5 * torch.randn(x0.shape, generator=generator, dtype=torch.float64), t)
    velocity = 0.5 * oracle(x_t / 0.5, t, NOTHING)
    return x_t.to(dtype), t.to(dtype), velocity.to(dtype)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("method", METHODS)
def test_the_slope_of_gaussian_data_is_the_closed_form(method, dtype, shape):
    exact = Gaussian.random(shape)
    x_t, t, velocity = points(exact, dtype)
    oracle = Gaussian.random(shape, dtype)
    pair = value_and_tangent(oracle, x_t / 0.5, t, NOTHING, velocity / 0.5, torch.ones_like(t), method)
    assert pair.tangent.dtype == dtype
    assert relative_error(pair.tangent, exact.slope(x_t.double(), t.double())) < BOUNDS[method, dtype]
    assert relative_error(pair.value, exact(x_t.double() / 0.5, t.double(), NOTHING)) < 1e-5


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("method", METHODS)
def test_the_slope_of_a_mixture_is_the_trajectorys(method, shape):
    oracle = Mixture(shape)
    x_t, t, velocity = points(oracle, torch.float64)
    h = 1e-3

    def F(step):
        return oracle(oracle.trajectory(x_t, t, t + step) / 0.5, t + step, NOTHING)

    slope = (8 * (F(h) - F(-h)) - (F(2 * h) - F(-2 * h))) / (12 * h)
    pair = value_and_tangent(oracle, x_t / 0.5, t, NOTHING, velocity / 0.5, torch.ones_like(t), method)
    assert relative_error(pair.tangent, slope) < 1e-7


class Network(nn.Module):
    """A backbone of any rank with weights everywhere, so that no derivative vanishes."""

    def __init__(self, shape, dropout=0.0):
        super().__init__()
        rank = len(shape) - 1
        self.net = Transformer(
            shape[0], rank, patch=1, width=24, depth=2, num_heads=2, labels={"class": 3}, dropout=dropout
        ).double()
        generator = torch.Generator().manual_seed(0)
        for parameter in self.net.parameters():
            draws = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.data = 0.2 * draws + (0.5 if parameter.ndim == 1 else 0.0)

    def forward(self, u, t, cond):
        return self.net(u, t, cond)


def trajectory_velocity(shape, dtype=torch.float64, num=3):
    generator = torch.Generator().manual_seed(1)
    u, du = (torch.randn(num, *shape, generator=generator, dtype=torch.float64).to(dtype) for _ in range(2))
    t = torch.tensor([0.1, 0.8, 1.5], dtype=dtype)
    return u, t, Conditioning(labels={"class": torch.tensor([0, 2, -1])}), du, torch.tensor([1.0, 0.5, -0.3]).to(t)


def differences(network, u, t, cond, du, dt, h=2e-4):
    """Central differences of fourth order in float64."""
    with torch.no_grad():
        F = [network(u + k * h * du, t + k * h * dt, cond) for k in (-2, -1, 1, 2)]
    return (F[0] - 8 * F[1] + 8 * F[2] - F[3]) / (12 * h)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("method", METHODS)
def test_every_way_agrees_with_differences_through_a_transformer(method, shape):
    network, inputs = Network(shape), trajectory_velocity(shape)
    expected = differences(network, *inputs)
    pair = value_and_tangent(network, *inputs, method)
    assert relative_error(pair.tangent, expected) < BOUNDS[method, torch.float64]
    torch.testing.assert_close(pair.value, network(*inputs[:3]))
    single = Network(shape).float()
    u, t, cond, du, dt = trajectory_velocity(shape, torch.float32)
    error = relative_error(value_and_tangent(single, u, t, cond, du, dt, method).tangent, expected)
    assert error < BOUNDS[method, torch.float32]


@pytest.mark.parametrize("shape", SHAPES)
def test_the_exact_ways_agree_to_rounding(shape):
    network, inputs = Network(shape), trajectory_velocity(shape)
    one_pass, forward = (value_and_tangent(network, *inputs, method).tangent for method in ("one_pass", "forward"))
    assert relative_error(one_pass, forward) < 1e-12


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("method", METHODS)
def test_gradients_through_the_value_are_those_of_a_plain_pass(method, shape):
    network, inputs = Network(shape), trajectory_velocity(shape)
    plain = torch.autograd.grad(network(*inputs[:3]).square().sum(), list(network.parameters()), allow_unused=True)
    pair = value_and_tangent(network, *inputs, method)
    assert not pair.tangent.requires_grad
    ours = torch.autograd.grad(pair.value.square().sum(), list(network.parameters()), allow_unused=True)
    for mine, theirs in zip(ours, plain, strict=True):
        assert (mine is None) == (theirs is None)
        if theirs is not None:
            torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("method", METHODS)
def test_dropout_draws_one_mask_for_value_and_tangent(method):
    network, (u, t, cond, du, dt) = Network((2, 6), dropout=0.4).train(), trajectory_velocity((2, 6))

    def with_mask(x, s, _):
        torch.manual_seed(7)
        return network(x, s, cond)

    expected = differences(with_mask, u, t, cond, du, dt)
    torch.manual_seed(7)
    pair = value_and_tangent(network, u, t, cond, du, dt, method)
    torch.testing.assert_close(pair.value, with_mask(u, t, cond))
    assert relative_error(pair.tangent, expected) < 1e-8
    torch.manual_seed(8)
    assert relative_error(value_and_tangent(network, u, t, cond, du, dt, method).tangent, expected) > 1e-2


@pytest.mark.parametrize("method", METHODS)
def test_random_numbers_are_drawn_as_by_a_plain_pass(method):
    network, inputs = Network((2, 6), dropout=0.4).train(), trajectory_velocity((2, 6))
    torch.manual_seed(3)
    network(*inputs[:3])
    expected = torch.rand(4)
    torch.manual_seed(3)
    value_and_tangent(network, *inputs, method)
    assert torch.equal(torch.rand(4), expected)


def test_a_backbone_that_takes_no_pair_is_named_with_the_remedy():
    class Plain:
        accepts_dual = True

        def __call__(self, u, t, cond):
            return u.value if isinstance(u, DualTensor) else u

    with pytest.raises(ValueError, match=r"Plain returned Tensor for a DualTensor.*'forward'"):
        value_and_tangent(Plain(), *trajectory_velocity((2, 5)))


def test_an_unknown_method_is_refused():
    with pytest.raises(ValueError, match="'backward'"):
        value_and_tangent(lambda u, t, cond: u, *trajectory_velocity((2, 5)), method="backward")


def test_the_step_of_differences_can_be_given():
    u, t, cond, du, dt = trajectory_velocity((2, 5))
    cubic = value_and_tangent(lambda u, t, cond: u**3, u, t, cond, du, dt, "finite_difference", step=0.1).tangent
    torch.testing.assert_close(cubic, 3 * u**2 * du + 0.01 * du**3)


def test_locally_gives_any_operation_its_tangent():
    u, _, _, du, _ = trajectory_velocity((2, 5))
    pair = jvp_op(torch.tanh, DualTensor(u, du))
    torch.testing.assert_close(pair.tangent, (1 - torch.tanh(u) ** 2) * du)

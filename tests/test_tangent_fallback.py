"""A backbone that takes no ``DualTensor`` is found out once and handled by a forward-mode pass; its own errors stay."""

from __future__ import annotations

import warnings

import pytest
import torch
from einops import rearrange
from torch import nn

from scm_media.conditioning import Conditioning
from scm_media.losses import ConsistencyLoss
from scm_media.nn.dual import Dropout, Linear, apply_linear
from scm_media.tangent import value_and_tangent
from scm_media.timesteps import LogNormalTimesteps
from scm_media.trigflow import TrigFlow, broadcast_time
from tests.nn.backbones import inputs as inputs_of_rank
from tests.nn.backbones import transformer, unet
from tests.plain import attentive, convolutional, pointwise

NOTHING = Conditioning()


def inputs(dtype=torch.float32):
    """u, t, cond, du, dt."""
    generator = torch.Generator().manual_seed(1)
    u, du = torch.randn(2, 3, 2, 4, 6, generator=generator, dtype=dtype)
    t, dt = torch.rand(2, 3, generator=generator, dtype=dtype)
    return u, t, NOTHING, du, dt


@pytest.fixture
def silence():
    """Turns warnings to the user into errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        yield


@pytest.mark.parametrize("make", [convolutional, pointwise, attentive])
def test_plain_layers_carry_the_tangent_in_one_pass(make, silence):
    network = make().double()
    calls = []
    network.register_forward_hook(lambda *_: calls.append(1))
    pair = value_and_tangent(network, *inputs(torch.float64))
    assert len(calls) == 1
    expected = value_and_tangent(network, *inputs(torch.float64), "forward")
    torch.testing.assert_close(pair.tangent, expected.tangent, rtol=1e-9, atol=1e-12)
    assert torch.equal(pair.value, expected.value)
    assert pair.value.requires_grad
    assert not pair.tangent.requires_grad
    assert not hasattr(network, "needs_forward_mode")


@pytest.mark.parametrize("layout", ["attention", "channels_last"])
def test_group_norm_of_another_layout_has_a_tangent(layout):
    """The layout that attention leaves in the U-Nets of diffusers, and that of ``channels_last``."""
    norm = nn.GroupNorm(1, 2).double()
    nn.init.normal_(norm.weight)

    def backbone(u, t, cond):
        x = torch.sin(u) * broadcast_time(t, u)
        if layout == "channels_last":
            return norm(x.contiguous(memory_format=torch.channels_last))
        return norm(rearrange(rearrange(x, "b c h w -> b (h w) c").contiguous(), "b (h w) c -> b c h w", h=4))

    u, t, cond, du, dt = inputs(torch.float64)
    tangent = value_and_tangent(backbone, u, t, cond, du, dt, "forward").tangent
    expected = value_and_tangent(backbone, u, t, cond, du, dt, "finite_difference").tangent
    torch.testing.assert_close(tangent, expected, rtol=1e-6, atol=1e-8)


class Writing(nn.Module):
    """Writes into a tensor that was there before, where a tangent cannot be carried."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, u, t, cond):
        self.seen.append(type(u).__name__)
        out = torch.zeros(3, 2, 4, 6, dtype=u.dtype)
        out[:] = torch.sin(u)
        return out


def test_a_backbone_that_cannot_is_handled_by_forward_mode_and_told_of_once():
    network, another = Writing(), Writing()
    expected = torch.cos(inputs()[0]) * inputs()[3]
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", UserWarning)
        for _ in range(3):
            torch.testing.assert_close(value_and_tangent(network, *inputs()).tangent, expected)
        told = [each for each in told if issubclass(each.category, UserWarning)]
        assert len(told) == 1 and told[0].filename == __file__
    assert "Writing cannot carry a value and its tangent in one pass (it writes a tensor" in str(told[0].message)
    assert "\n" not in str(told[0].message)
    with pytest.warns(UserWarning, match="cannot carry"):
        value_and_tangent(another, *inputs())
    assert network.needs_forward_mode is another.needs_forward_mode is True
    assert network.seen.count("TangentTensor") == 1


ABLE = {
    "operator": lambda u: 2 * u,
    "operator of a tensor": lambda u: torch.ones(2, 1, 1) - u,
    "comparison": lambda u: torch.where(u > 0, u, 0.1 * u),
    "attribute": lambda u: u.reshape(*u.shape),
    "unpacking": lambda u: torch.stack([*u]),
    "index": lambda u: u[:, :, ::1],
    "torch": torch.tanh,
    "torch.cat": lambda u: torch.cat([u[:, :1], u], 1)[:, 1:],
    "functional": lambda u: nn.functional.conv2d(u, torch.ones(2, 2, 1, 1)),
    "einops": lambda u: rearrange(u, "b c h w -> b c (h w)").reshape(3, 2, 4, 6),
    "check": lambda u: u if isinstance(u, torch.Tensor) else _refuse(u),
    "layers of ours": lambda u: torch.tanh(apply_linear(lambda v: 2 * v, u)),
}


def _refuse(u):
    raise ValueError(f"expected a tensor, got {type(u).__name__}")


@pytest.mark.parametrize("name", ABLE)
def test_whatever_a_module_does_with_tensors_carries_the_tangent(name, silence):
    def backbone(u, t, cond):
        return ABLE[name](u)

    pair = value_and_tangent(backbone, *inputs())
    expected = value_and_tangent(backbone, *inputs(), "forward")
    torch.testing.assert_close(pair.tangent, expected.tangent)
    assert pair.tangent.abs().max() > 0.1


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("shapes do not fit"),
        TypeError("'NoneType' object is not callable"),
        ValueError("too large"),
        KeyError(3),
    ],
)
def test_an_error_of_the_backbones_own_is_shown_as_it_is(error, silence):
    class Broken(nn.Module):
        def forward(self, u, t, cond):
            raise error

    network = Broken()
    for _ in range(2):
        with pytest.raises(type(error)) as shown:
            value_and_tangent(network, *inputs())
        assert shown.value is error
    assert not hasattr(network, "needs_forward_mode")


class HalfWay(nn.Module):
    """Layers of ours with dropout, then torch's own."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.dropout, self.linear, self.again = Dropout(0.5), Linear(6, 6), nn.Dropout(0.5)

    def forward(self, u, t, cond):
        return self.again(torch.tanh(self.linear(self.dropout(u))))


def test_dropout_draws_one_mask_for_value_and_tangent(silence):
    network, (u, t, cond, du, dt) = HalfWay().double(), inputs(torch.float64)

    def with_mask(step):
        torch.manual_seed(7)
        return network(u + step * du, t + step * dt, cond)

    value, after = with_mask(0), torch.rand(4)
    expected = (with_mask(1e-5) - with_mask(-1e-5)) / 2e-5
    torch.manual_seed(7)
    pair = value_and_tangent(network, u, t, cond, du, dt)
    assert torch.equal(torch.rand(4), after)
    assert torch.equal(pair.value, value)
    torch.testing.assert_close(pair.tangent, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("accepts_dual", [False, True])
def test_a_backbone_that_says_what_it_takes_is_not_asked(accepts_dual, silence):
    network = HalfWay().eval()
    network.accepts_dual = accepts_dual
    if accepts_dual:
        with pytest.raises(TypeError, match="must be Tensor, not DualTensor"):
            value_and_tangent(network, *inputs())
    else:
        expected = value_and_tangent(network, *inputs(), "forward")
        torch.testing.assert_close(value_and_tangent(network, *inputs()).tangent, expected.tangent)


def test_a_backbone_known_to_need_forward_mode_is_not_tried(silence):
    network = HalfWay().eval()
    network.needs_forward_mode = True
    expected = value_and_tangent(network, *inputs(), "forward")
    assert torch.equal(value_and_tangent(network, *inputs()).tangent, expected.tangent)


def test_a_bound_method_is_a_backbone_too():
    network = pointwise()
    pair = value_and_tangent(network.forward, *inputs())
    torch.testing.assert_close(pair.tangent, value_and_tangent(network, *inputs(), "forward").tangent)


def test_a_student_of_plain_layers_trains_by_default():
    flow, x0 = TrigFlow(0.5), 0.5 * torch.randn(16, 2, 4, 6, generator=torch.Generator().manual_seed(1))
    gradients = []
    for method in ("one_pass", "forward"):
        network = convolutional(dropout=0.3).train()
        loss = ConsistencyLoss(network, flow, LogNormalTimesteps(0.0, 1.0), tangent_method=method)
        torch.manual_seed(0)
        value, _ = loss(x0, NOTHING, torch.tensor(10_000))
        gradients.append(torch.autograd.grad(value, list(network.parameters())))
    for mine, other in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, other)


@pytest.mark.parametrize("compiled", ["in place", pytest.param("wrapped", marks=pytest.mark.slow)])
@pytest.mark.parametrize("make", [convolutional, pytest.param(attentive, marks=pytest.mark.slow)])
def test_a_compiled_backbone_carries_it_uncompiled(compiled, make):
    network = make()
    expected = value_and_tangent(network, *inputs(), "forward")
    torch._dynamo.reset()
    if compiled == "in place":
        network.compile(backend="eager")
    else:
        network = torch.compile(network, backend="eager")
    pair = value_and_tangent(network, *inputs())
    torch.testing.assert_close(pair.tangent, expected.tangent)
    torch.testing.assert_close(pair.value, expected.value)


@pytest.mark.slow
@pytest.mark.parametrize("make", [transformer, unet])
def test_backbones_of_ours_say_that_they_take_pairs_and_are_captured_whole(make, silence):
    network = make(1)
    assert network.accepts_dual is True
    u, t, cond = inputs_of_rank(1)
    arguments = (network, u.value, t.value, cond, u.tangent, t.tangent)
    torch._dynamo.reset()
    captured = torch.compile(value_and_tangent, backend="eager", fullgraph=True)(*arguments)
    expected = value_and_tangent(*arguments)
    torch.testing.assert_close(captured.tangent, expected.tangent)
    torch.testing.assert_close(captured.value, expected.value)

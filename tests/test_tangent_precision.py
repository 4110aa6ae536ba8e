"""Under bf16 autocast the value is computed in 16 bits, and its tangent is as near to float64 as each method says."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from scm_media.conditioning import Conditioning
from scm_media.losses import ConsistencyLoss
from scm_media.nn.dual import DualTensor
from scm_media.tangent import value_and_tangent
from scm_media.timesteps import LogNormalTimesteps
from scm_media.trigflow import TrigFlow
from tests.nn.backbones import in_float32, inputs, transformer, unet
from tests.plain import attentive, convolutional, pointwise

PLAIN = [convolutional, pointwise, attentive]


def ours(make):
    """A network of ours in float32 and in float64, with pairs u and t, and conditioning, of each width."""
    return make(2, torch.float32), make(2), in_float32(*inputs(2)), inputs(2)


def plain(make):
    network = make()
    u, t, _ = inputs(2)
    narrow = (DualTensor(x.value.float(), x.tangent.float()) for x in (u, t))
    return network, copy.deepcopy(network).double(), (*narrow, Conditioning()), (u, t, Conditioning())


def evaluate(network, u, t, cond, method, **options):
    return value_and_tangent(network, u.value, t.value, cond, u.tangent, t.tangent, method, **options)


def relative_error(got, expected):
    return ((got.double() - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize(
    ("setting", "make"),
    [(ours, transformer), (ours, unet), *((plain, make) for make in PLAIN)],
    ids=lambda f: f.__name__,
)
@pytest.mark.parametrize(("method", "bound"), [("forward", 1e-5), ("finite_difference", 1e-3)])
def test_two_passes_take_the_tangent_in_float32(setting, make, method, bound):
    network, wide_network, narrow, wide = setting(make)
    exact = evaluate(wide_network, *wide, "forward")
    u, t, cond = narrow
    with torch.autocast("cpu", torch.bfloat16):
        pair = evaluate(network, u, t, cond, method)
        value = network(u.value, t.value, cond)
    assert torch.equal(pair.value, value)
    assert relative_error(value, exact.value) > 1e-4, "autocast did nothing to the value"
    assert relative_error(pair.tangent, exact.tangent) < bound
    gradients = torch.autograd.grad(pair.value.float().square().sum(), list(network.parameters()), allow_unused=True)
    assert any(gradient is not None and gradient.abs().max() > 0 for gradient in gradients)


@pytest.mark.parametrize("method", ["forward", "finite_difference"])
def test_latents_of_16_bits_are_widened_for_the_tangent(method):
    network, wide_network, (u, t, cond), _ = plain(convolutional)
    u, t = (DualTensor(x.value.bfloat16(), x.tangent.bfloat16()) for x in (u, t))
    wide = (DualTensor(x.value.double(), x.tangent.double()) for x in (u, t))
    exact = evaluate(wide_network, *wide, cond, "forward").tangent
    with torch.autocast("cpu", torch.bfloat16):
        assert relative_error(evaluate(network, u, t, cond, method).tangent, exact) < 1e-3


def test_differences_leave_autocast_and_tf32_and_put_them_back():
    seen = []

    def network(u, t, cond):
        matmul = torch.get_float32_matmul_precision(), torch.backends.cuda.matmul.allow_tf32
        seen.append((torch.is_autocast_enabled("cpu"), *matmul, torch.backends.cudnn.allow_tf32))
        return u * 2

    u, t, cond = in_float32(*inputs(2))
    torch.set_float32_matmul_precision("high")
    try:
        with torch.autocast("cpu", torch.bfloat16):
            evaluate(network, u, t, cond, "finite_difference")
            assert torch.is_autocast_enabled("cpu")
        assert torch.get_float32_matmul_precision() == "high"
        assert torch.backends.cudnn.allow_tf32
    finally:
        torch.set_float32_matmul_precision("highest")
    assert seen == [(False, "highest", False, False)] * 2 + [(True, "high", True, True)]


def test_differences_of_weights_of_16_bits_are_refused():
    u, t, cond = in_float32(*inputs(2))
    with pytest.raises(ValueError, match=r"PlainBackbone need weights in float32.*got 16 bits.*bf16-mixed.*'forward'"):
        evaluate(convolutional().bfloat16(), u, t, cond, "finite_difference")


def test_forward_mode_of_weights_of_16_bits_stays_in_them():
    network = pointwise().bfloat16()
    u, t, _ = inputs(2)
    u, t = (DualTensor(x.value.bfloat16(), x.tangent.bfloat16()) for x in (u, t))
    exact = evaluate(copy.deepcopy(network).double(), *inputs(2)[:2], Conditioning(), "forward").tangent
    for autocast in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            assert relative_error(evaluate(network, u, t, Conditioning(), "forward").tangent, exact) < 0.05


def test_an_operation_without_a_forward_rule_is_named_with_the_remedy():
    class Distances(nn.Module):
        def forward(self, u, t, cond):
            return torch.cdist(u, u)

    u, t, cond = in_float32(*inputs(2))
    with pytest.raises(
        ValueError, match=r"Distances has an operation .*cdist.*set tangent_method to 'finite_diff"
    ) as e:
        evaluate(Distances(), u, t, cond, "forward")
    assert "\n" not in str(e.value)

    def not_yet(u, t, cond):
        raise NotImplementedError("later")

    with pytest.raises(NotImplementedError, match="later"):
        evaluate(not_yet, u, t, cond, "forward")


def test_a_student_of_plain_layers_has_the_gradient_of_float32_under_bf16():
    flow, x0 = TrigFlow(0.5), 0.5 * torch.randn(16, 2, 4, 6, generator=torch.Generator().manual_seed(1))
    network, teacher = convolutional(), convolutional()
    nn.init.normal_(teacher.layers[-1].weight, std=0.1)
    loss = ConsistencyLoss(
        network, flow, LogNormalTimesteps(0.0, 1.0), teacher=teacher, tangent_method="forward", tangent_warmup=0
    )

    def gradient(autocast):
        torch.manual_seed(0)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            value, _ = loss(x0, Conditioning(), torch.tensor(0))
        return torch.cat([part.flatten() for part in torch.autograd.grad(value, list(network.parameters()))])

    exact = gradient(False)
    assert (gradient(True) - exact).norm() < 0.1 * exact.norm()

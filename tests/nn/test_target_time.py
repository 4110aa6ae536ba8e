"""The time that a flow map goes to, as an input of each backbone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from scm_media.conditioning import Conditioning
from scm_media.nn.dual import DualTensor
from scm_media.tangent import value_and_tangent
from scm_media.testing import check_backbone
from tests.nn.backbones import LATENTS, clips, fresh_clips, fresh_transformer, fresh_unet, inputs, transformer, unet
from tests.nn.test_dual import by_differences

NETWORKS = {"transformer": (transformer, 2), "unet": (unet, 1), "clips": (clips, 3)}
FRESH = {"transformer": (fresh_transformer, 2), "unet": (fresh_unet, 1), "clips": (fresh_clips, 3)}
each_network = pytest.mark.parametrize("name", NETWORKS)
S = DualTensor(torch.tensor([0.0, 0.2, 0.4]).double(), torch.tensor([0.7, -0.4, 1.3]).double())


def made(name):
    make, rank = NETWORKS[name]
    return make(rank, target=True), inputs(rank)


@each_network
def test_the_tangent_is_the_derivative_through_both_times(name):
    net, (u, t, cond) = made(name)
    out = net(u, t, replace(cond, target=S))
    value, tangent = by_differences(lambda x, at, end: net(x, at, replace(cond, target=end)), u, t, S, h=2e-4)
    torch.testing.assert_close(out.value, value)
    assert (out.tangent - tangent).norm() < 1e-9 * tangent.norm()
    fixed = net(u, t, replace(cond, target=S.value))
    assert (out.tangent - fixed.tangent).norm() > 1e-3 * tangent.norm(), "ds/dt counts"


@each_network
def test_one_pass_gives_what_two_passes_do(name):
    net, (u, t, cond) = made(name)
    given = (u.value.detach(), t.value.detach(), replace(cond, target=S), u.tangent, t.tangent)
    one, two = (value_and_tangent(net, *given, method) for method in ("one_pass", "forward"))
    torch.testing.assert_close(one.value, two.value, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(one.tangent, two.tangent, rtol=1e-9, atol=1e-9)
    by_steps = value_and_tangent(net, *given, "finite_difference").tangent
    assert (by_steps - one.tangent).norm() < 1e-6 * one.tangent.norm()


@each_network
def test_gradients_reach_the_layers_of_the_target(name):
    net, (u, t, cond) = made(name)
    net(u, t, replace(cond, target=S)).value.square().sum().backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in net.target.parameters())


@each_network
def test_no_target_is_the_data(name):
    net, (u, t, cond) = made(name)
    F = net(u.value, t.value, cond)
    assert torch.equal(net(u.value, t.value, replace(cond, target=torch.zeros(3))), F)
    assert (net(u.value, t.value, replace(cond, target=S.value)) - F)[1:].abs().max() > 1e-4
    check_backbone(net, LATENTS[NETWORKS[name][1]], cond)


@each_network
def test_a_teachers_weights_start_it_unchanged(name):
    make, rank = FRESH[name]
    teacher, student = make(rank), make(rank, target=True)
    own = {key for key in student.state_dict() if key.startswith("target.")}
    assert own and all(torch.equal(student.state_dict()[key], each) for key, each in teacher.state_dict().items())
    trained, _ = NETWORKS[name]
    teacher = trained(rank)
    teacher.load_state_dict(teacher.state_dict())  # magnitude-preserving weights are brought to unit rows on loading
    student = student.double()
    student.load_state_dict({**student.state_dict(), **teacher.state_dict()})
    u, t, cond = inputs(rank)
    expected, got = teacher(u, t, cond), student(u, t, replace(cond, target=S))
    assert torch.equal(got.value, expected.value) and torch.equal(got.tangent, expected.tangent)


class Unmodified(nn.Module):
    """A network of torch's own functions that reads the target."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 6)

    def forward(self, u, t, cond):
        return torch.tanh(self.layer(u)) * torch.cos(t - 2 * cond.target)[:, None]


def test_an_unmodified_network_carries_the_tangent_of_the_target():
    torch.manual_seed(0)
    net = Unmodified().double()
    u, du = (torch.randn(3, 6, dtype=torch.float64) for _ in range(2))
    t, dt = torch.rand(2, 3, dtype=torch.float64)
    cond = Conditioning(target=S)
    one, two = (value_and_tangent(net, u, t, cond, du, dt, method) for method in ("one_pass", "forward"))
    torch.testing.assert_close(one.value, two.value, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(one.tangent, two.tangent, rtol=1e-12, atol=1e-12)
    fixed = value_and_tangent(net, u, t, Conditioning(target=S.value), du, dt)
    assert (one.tangent - fixed.tangent).abs().max() > 1e-2

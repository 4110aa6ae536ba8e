"""The transformer over space and time: derivatives, masks, single frames, and both kinds of attention."""

from __future__ import annotations

import pytest
import torch

from modalities.video.backbone import SpaceTimeTransformer
from scm_media.conditioning import Conditioning
from scm_media.nn.dual import DualTensor
from tests.nn.test_dual import by_differences

LATENT = (2, 3, 2, 4)
KINDS = ("factorised", "full")
both = pytest.mark.parametrize("attention", KINDS)


def network(attention="factorised", **options) -> SpaceTimeTransformer:
    """A float64 network whose every weight counts (a fresh one gives 0)."""
    torch.manual_seed(0)
    labels = {"class": 4, "fps": 0}
    net = SpaceTimeTransformer(
        2, (1, 2, 2), 24, 2, 2, attention, labels=labels, label_units={"fps": 10.0}, **options
    ).double()
    for parameter in net.parameters():
        parameter.data = 0.2 * torch.randn_like(parameter) + (0.5 if parameter.ndim == 1 else 0.0)
    return net


def inputs(num=2, latent=LATENT):
    generator = torch.Generator().manual_seed(1)
    u, du = (torch.randn(num, *latent, generator=generator, dtype=torch.float64) for _ in range(2))
    t, dt = torch.rand(2, num, generator=generator, dtype=torch.float64)
    labels = {"class": torch.arange(num) % 4, "fps": torch.linspace(8.0, 24.0, num, dtype=torch.float64)}
    return DualTensor(u, du), DualTensor(t, dt), Conditioning(labels=labels)


@both
@pytest.mark.parametrize("num_frames", [1, 3])
def test_the_tangent_is_the_derivative(attention, num_frames):
    net = network(attention, num_cond_channels=3, guidance=True)
    latent = (2, num_frames, 2, 4)
    u, t, cond = inputs(latent=latent)
    valid = torch.ones(2, 1, *latent[1:], dtype=torch.float64)
    valid[1, ..., 2:] = 0
    cond = Conditioning(
        labels=cond.labels,
        concat=torch.full((2, 3, *latent[1:]), 0.3, dtype=torch.float64),
        padding_mask=valid,
        guidance=torch.tensor([1.0, 3.0], dtype=torch.float64),
    )
    out = net(u, t, cond)
    value, tangent = by_differences(lambda x, s: net(x, s, cond), u, t, h=2e-4)
    torch.testing.assert_close(out.value, value)
    assert (out.tangent - tangent).norm() < 1e-8 * tangent.norm()


@both
def test_gradients_through_the_pair_are_those_of_two_passes(attention):
    net = network(attention)
    u, t, cond = inputs()

    def gradients(F, tangent):
        loss = (F - F.detach() - tangent / (tangent.norm() + 0.1)).square().mean()
        return torch.autograd.grad(loss, list(net.parameters()))

    pair = net(u, t, cond)
    ours = gradients(pair.value, pair.tangent)
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH), torch.no_grad():
        forward = torch.func.jvp(lambda x, s: net(x, s, cond), (u.value, t.value), (u.tangent, t.tangent))[1]
    for mine, other in zip(ours, gradients(net(u.value, t.value, cond), forward), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-10, atol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("attention", ["factorised", "full"])
def test_it_is_captured_whole_by_the_compiler(attention):
    net = network(attention)
    u, t, cond = inputs()
    captured = torch.compile(net, backend="eager", fullgraph=True)
    expected, got = net(u, t, cond), captured(u, t, cond)
    torch.testing.assert_close(got.value, expected.value)
    torch.testing.assert_close(got.tangent, expected.tangent)


def test_one_frame_passes_the_attention_along_time_as_it_is_and_leaves_it_alone():
    net = network().train()
    u, t, cond = inputs(latent=(2, 1, 2, 4))
    F = net(u.value, t.value, cond)
    F.square().sum().backward()
    along_time = {name for name, _ in net.named_parameters() if ".time_" in name}
    assert along_time
    for name, parameter in net.named_parameters():
        used = name not in along_time and name != "labels.absent.fps"  # every clip has its frame rate
        assert (parameter.grad.abs().max() > 0) == used, name
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name in along_time:
                parameter.normal_()
    torch.testing.assert_close(net(u.value, t.value, cond), F.detach(), rtol=0, atol=0)


def test_frames_meet_along_time_alone():
    """In one block a place hears of another place in another frame only by way of its own frame or its own line."""
    torch.manual_seed(0)
    net = SpaceTimeTransformer(2, (1, 2, 2), 24, 1, 2).double()
    for parameter in net.parameters():
        parameter.data = 0.3 * torch.randn_like(parameter) + (0.5 if parameter.ndim == 1 else 0.0)
    u = torch.randn(1, 2, 3, 2, 8, dtype=torch.float64, requires_grad=True)
    t = torch.ones(1, dtype=torch.float64)
    for parameter in net.blocks[0].attention.out.parameters():
        parameter.data.zero_()
    F = net(u, t, Conditioning())
    (slope,) = torch.autograd.grad(F[0, :, 0, :, :2].sum(), u)
    assert (slope[0, :, 2, :, :2].abs() > 0).any()
    assert slope[0, :, :, :, 2:].abs().max() == 0


@both
def test_any_number_of_frames_and_their_order_and_the_frame_rate_matter(attention):
    net = network(attention)
    for num_frames in (1, 2, 5):
        u, t, cond = inputs(latent=(2, num_frames, 2, 4))
        F = net(u.value, t.value, cond)
        assert F.shape == u.value.shape
        faster = Conditioning(labels={**cond.labels, "fps": cond.labels["fps"] * 2})
        assert (net(u.value, t.value, faster) - F).abs().max() > 1e-3
        untold = Conditioning(labels={**cond.labels, "fps": cond.labels["fps"] * torch.nan})
        assert torch.isfinite(net(u.value, t.value, untold)).all()
    back = net(u.value.flip(2), t.value, cond).flip(2)
    assert (back - F).abs().max() > 1e-3


@both
def test_padding_does_not_reach_what_is_valid(attention):
    net = network(attention)
    u, t, cond = inputs()
    valid = torch.ones(2, 1, *LATENT[1:], dtype=torch.float64)
    valid[:, :, 2:] = 0
    valid[1, ..., 2:] = 0
    cond = Conditioning(labels=cond.labels, padding_mask=valid)
    changed = torch.where(valid > 0, u.value, u.value + 5.0)
    first, second = (net(x, t.value, cond) * valid for x in (u.value, changed))
    torch.testing.assert_close(first, second, rtol=1e-12, atol=1e-12)
    valid[:] = 0
    assert torch.isfinite(net(u.value, t.value, cond)).all()


def test_an_attention_that_there_is_not_and_patches_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"backbone.attention must be factorised or full, got 'both'"):
        network("both")
    with pytest.raises(ValueError, match=r"latent sizes \(3, 3, 4\) must be multiples of the patch \(1, 2, 2\)"):
        network()(torch.zeros(1, 2, 3, 3, 4).double(), torch.ones(1).double(), Conditioning())

"""Tests every backbone that carries a pair, whatever it is made of."""

from __future__ import annotations

import pytest
import torch

from scm_media.conditioning import Conditioning
from scm_media.testing import check_backbone
from tests.nn.backbones import LATENTS, RANKS, in_float32, inputs, transformer, unet
from tests.nn.test_dual import by_differences

pytestmark = pytest.mark.parametrize("make", [transformer, unet])
slow = pytest.mark.slow


def aligned_and_masked(rank, cond):
    valid = torch.ones(3, 1, *LATENTS[rank][1:], dtype=torch.float64)
    valid[1, ..., 3:] = 0
    aligned = torch.full((3, 1, *LATENTS[rank][1:]), 0.3, dtype=torch.float64)
    scale = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)
    return Conditioning(labels=cond.labels, concat=aligned, padding_mask=valid, guidance=scale)


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("conditioned", [False, True])
def test_the_tangent_is_the_derivative(make, conditioned, rank):
    net = make(rank, num_cond_channels=int(conditioned), guidance=conditioned)
    u, t, cond = inputs(rank)
    cond = aligned_and_masked(rank, cond) if conditioned else cond
    out = net(u, t, cond)
    value, tangent = by_differences(lambda x, s: net(x, s, cond), u, t, h=2e-4)
    assert out.value.shape == u.value.shape
    torch.testing.assert_close(out.value, value)
    assert (out.tangent - tangent).norm() < 1e-9 * tangent.norm()


@pytest.mark.parametrize("rank", RANKS)
def test_gradients_through_the_pair_are_those_of_two_passes(make, rank):
    net = make(rank)
    u, t, cond = inputs(rank)

    def gradients(F, tangent):
        loss = (F - F.detach() - tangent / (tangent.norm() + 0.1)).square().mean()
        return torch.autograd.grad(loss, list(net.parameters()))

    pair = net(u, t, cond)
    ours = gradients(pair.value, pair.tangent)
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH), torch.no_grad():
        forward = torch.func.jvp(lambda x, s: net(x, s, cond), (u.value, t.value), (u.tangent, t.tangent))[1]
    theirs = gradients(net(u.value, t.value, cond), forward)
    assert all(gradient.abs().max() > 0 for gradient in ours)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("rank", RANKS)
def test_it_conforms_to_the_contract_of_a_backbone(make, rank):
    check_backbone(make(rank), LATENTS[rank], inputs(rank)[2])


@pytest.mark.parametrize("rank", RANKS)
def test_dropout_is_one_mask_in_value_and_tangent(make, rank):
    net = make(rank, dropout=0.4).train()
    u, t, cond = inputs(rank)

    def seeded(x, s):
        torch.manual_seed(5)
        return net(x, s, cond)

    out = seeded(u, t)
    value, tangent = by_differences(seeded, u, t, h=2e-4)
    torch.testing.assert_close(out.value, value)
    assert (out.tangent - tangent).norm() < 1e-9 * tangent.norm()
    assert (out.value - net.eval()(u.value, t.value, cond)).norm() > 0.01


@slow
@pytest.mark.parametrize("rank", RANKS)
def test_it_is_captured_whole_by_the_compiler(make, rank):
    net = make(rank)
    u, t, cond = inputs(rank)
    captured = torch.compile(net, backend="eager", fullgraph=True)
    expected, got = net(u, t, cond), captured(u, t, cond)
    torch.testing.assert_close(got.value, expected.value)
    torch.testing.assert_close(got.tangent, expected.tangent)


@pytest.mark.parametrize("rank", RANKS)
def test_labels_time_and_place_all_matter(make, rank):
    net = make(rank)
    u, t, cond = inputs(rank)
    F = net(u.value, t.value, cond)
    assert (net(u.value, t.value, cond.drop(torch.ones(3, dtype=torch.bool))) - F).abs().max() > 1e-3
    assert (net(u.value, t.value + 0.3, cond) - F).abs().max() > 1e-3
    rolled = net(u.value.roll(2, -1), t.value, cond).roll(-2, -1)
    assert (rolled - F).abs().max() > 1e-3


@pytest.mark.parametrize("rank", RANKS)
def test_padding_does_not_reach_what_is_valid(make, rank):
    net = make(rank)
    u, t, cond = inputs(rank)
    cond = Conditioning(labels=cond.labels, padding_mask=torch.ones(3, 1, *LATENTS[rank][1:], dtype=torch.float64))
    cond.padding_mask[..., 4:] = 0
    changed = u.value.clone()
    changed[..., 4:] += 5.0
    first, second = (net(x, t.value, cond)[..., :4] for x in (u.value, changed))
    torch.testing.assert_close(first, second, rtol=1e-12, atol=1e-12)
    cond.padding_mask[:] = 0
    assert torch.isfinite(net(u.value, t.value, cond)).all()


def test_clips_of_a_batch_do_not_meet(make):
    net = make(2)
    u, t, cond = inputs(2)
    alone = net(u.value[1:2], t.value[1:2], cond[1:2])
    torch.testing.assert_close(net(u.value, t.value, cond)[1:2], alone, rtol=1e-10, atol=1e-12)


def test_bfloat16_keeps_the_tangent_close_and_the_path_of_time_wide(make):
    net = make(2, torch.float32)
    u, t, cond = in_float32(*inputs(2))
    exact, c = net(u, t, cond), net.condition(t, cond)
    with torch.autocast("cpu", torch.bfloat16):
        low, low_c = net(u, t, cond), net.condition(t, cond)
    assert low.value.dtype == low.tangent.dtype == torch.float32
    assert torch.equal(low_c.value, c.value)
    assert torch.equal(low_c.tangent, c.tangent)
    assert (low.value - exact.value).norm() < 0.05 * exact.value.norm()
    assert (low.tangent - exact.tangent).norm() < 0.05 * exact.tangent.norm()

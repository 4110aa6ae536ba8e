from __future__ import annotations

import math

import pytest
import torch

from scm_media.interfaces import NO_LABEL, Conditioning
from scm_media.nn.pair import Pair
from scm_media.nn.transformer import Transformer, from_patches, to_patches
from tests.nn.test_pair import by_differences

LATENTS = {1: (2, 6), 2: (2, 4, 6), 3: (2, 2, 4, 6)}
RANKS = list(LATENTS)


def make(rank, dtype=torch.float64, **options):
    """A transformer whose every weight counts (a fresh one gives 0)."""
    torch.manual_seed(0)
    net = Transformer(2, rank, patch=2, width=24, depth=2, num_heads=2, labels={"class": 4}, **options)
    for parameter in net.parameters():
        parameter.data = 0.2 * torch.randn(parameter.shape) + (0.5 if parameter.ndim == 1 else 0.0)
    return net.to(dtype)


def inputs(rank, num=3):
    generator = torch.Generator().manual_seed(1)
    u, du = (torch.randn(num, *LATENTS[rank], generator=generator, dtype=torch.float64) for _ in range(2))
    t, dt = torch.rand(2, num, generator=generator, dtype=torch.float64)
    return Pair(u, du), Pair(t, dt), Conditioning(labels={"class": torch.tensor([0, 3, NO_LABEL])})


def aligned_and_masked(rank, cond):
    valid = torch.ones(3, 1, *LATENTS[rank][1:], dtype=torch.float64)
    valid[1, ..., 2:] = 0
    aligned = torch.full((3, 1, *LATENTS[rank][1:]), 0.3, dtype=torch.float64)
    scale = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)
    return Conditioning(labels=cond.labels, aligned=aligned, valid=valid, guidance=scale)


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("conditioned", [False, True])
def test_the_tangent_is_the_derivative(conditioned, rank):
    net = make(rank, aligned_channels=int(conditioned), guidance=conditioned)
    u, t, cond = inputs(rank)
    cond = aligned_and_masked(rank, cond) if conditioned else cond
    out = net(u, t, cond)
    value, tangent = by_differences(lambda x, s: net(x, s, cond), u, t, h=2e-4)
    assert out.value.shape == u.value.shape
    torch.testing.assert_close(out.value, value)
    assert (out.tangent - tangent).norm() < 1e-9 * tangent.norm()


@pytest.mark.parametrize("rank", RANKS)
def test_gradients_through_the_pair_are_those_of_two_passes(rank):
    net = make(rank)
    u, t, cond = inputs(rank)

    def gradients(F, tangent):
        loss = (F - F.detach() - tangent / (tangent.norm() + 0.1)).square().mean()
        return torch.autograd.grad(loss, list(net.parameters()), allow_unused=True)

    pair = net(u, t, cond)
    ours = gradients(pair.value, pair.tangent)
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH), torch.no_grad():
        forward = torch.func.jvp(lambda x, s: net(x, s, cond), (u.value, t.value), (u.tangent, t.tangent))[1]
    theirs = gradients(net(u.value, t.value, cond), forward)
    for mine, other in zip(ours, theirs, strict=True):
        assert (mine is None) == (other is None)
        if mine is not None:
            torch.testing.assert_close(mine, other, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("rank", RANKS)
def test_dropout_is_one_mask_in_value_and_tangent(rank):
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


@pytest.mark.parametrize("rank", RANKS)
def test_patches_round_trip(rank):
    latent = torch.randn(3, *LATENTS[rank])
    tokens = to_patches(latent, (2,) * rank)
    assert tokens.shape == (3, latent[0, 0].numel() // 2**rank, 2 * 2**rank)
    assert torch.equal(from_patches(tokens, (2,) * rank, [extent // 2 for extent in latent.shape[2:]]), latent)


@pytest.mark.parametrize(("patch", "grid"), [((3,), (5,)), ((2, 3), (4, 2)), ((2, 1, 3), (2, 5, 3))])
def test_a_token_is_the_channels_and_axes_of_its_patch_in_order(patch, grid):
    latent = torch.randn(2, 3, *(cells * step for cells, step in zip(grid, patch, strict=True)))
    rank = len(patch)
    split = latent.reshape(2, 3, *(extent for pair in zip(grid, patch, strict=True) for extent in pair))
    grid_axes, patch_axes = range(2, 2 + 2 * rank, 2), range(3, 3 + 2 * rank, 2)
    expected = split.permute(0, *grid_axes, 1, *patch_axes).reshape(2, math.prod(grid), 3 * math.prod(patch))
    tokens = to_patches(latent, patch)
    assert torch.equal(tokens, expected)
    assert torch.equal(from_patches(tokens, patch, grid), latent)


@pytest.mark.parametrize("rank", RANKS)
def test_it_is_captured_whole_by_the_compiler(rank):
    net = make(rank)
    u, t, cond = inputs(rank)
    captured = torch.compile(net, backend="eager", fullgraph=True)
    torch.testing.assert_close(captured(u.value, t.value, cond), net(u.value, t.value, cond))


def test_a_patch_may_differ_by_axis():
    net = Transformer(1, 2, patch=(1, 3), width=8, depth=1, num_heads=1)
    assert net(torch.zeros(2, 1, 5, 6), torch.ones(2), Conditioning()).shape == (2, 1, 5, 6)


def test_a_fresh_network_gives_zero():
    net = Transformer(2, 1, patch=2, width=16, depth=2, num_heads=2)
    assert torch.equal(net(torch.randn(3, 2, 8), torch.rand(3), Conditioning()), torch.zeros(3, 2, 8))


@pytest.mark.parametrize("rank", RANKS)
def test_labels_time_and_place_all_matter(rank):
    net = make(rank)
    u, t, cond = inputs(rank)
    F = net(u.value, t.value, cond)
    assert (net(u.value, t.value, cond.drop(torch.ones(3, dtype=torch.bool))) - F)[:2].abs().max() > 1e-3
    assert (net(u.value, t.value + 0.3, cond) - F).abs().max() > 1e-3
    rolled = net(u.value.roll(2, -1), t.value, cond).roll(-2, -1)
    assert (rolled - F).abs().max() > 1e-3


@pytest.mark.parametrize("rank", RANKS)
def test_padding_does_not_reach_what_is_valid(rank):
    net = make(rank)
    u, t, cond = inputs(rank)
    valid = torch.ones(3, 1, *LATENTS[rank][1:], dtype=torch.float64)
    valid[..., 4:] = 0
    cond = Conditioning(labels=cond.labels, valid=valid)
    changed = u.value.clone()
    changed[..., 4:] += 5.0
    first, second = (net(x, t.value, cond)[..., :4] for x in (u.value, changed))
    torch.testing.assert_close(first, second, rtol=1e-12, atol=1e-12)


def test_clips_of_a_batch_do_not_meet():
    net = make(2)
    u, t, cond = inputs(2)
    alone = net(u.value[1:2], t.value[1:2], cond[1:2])
    torch.testing.assert_close(net(u.value, t.value, cond)[1:2], alone, rtol=1e-10, atol=1e-12)


def test_bfloat16_keeps_the_tangent_close():
    net = make(2, torch.float32)
    u, t, cond = inputs(2)
    u, t = (Pair(x.value.float(), x.tangent.float()) for x in (u, t))
    exact = net(u, t, cond)
    with torch.autocast("cpu", torch.bfloat16):
        low = net(u, t, cond)
    assert low.value.dtype == torch.float32
    assert (low.value - exact.value).norm() < 0.05 * exact.value.norm()
    assert (low.tangent - exact.tangent).norm() < 0.05 * exact.tangent.norm()


@pytest.mark.parametrize("shape", [(3, 2, 5), (3, 1, 6), (3, 2, 6, 6)])
def test_latents_that_do_not_fit_are_refused(shape):
    with pytest.raises(ValueError, match=r"patch|expected a latent"):
        make(1, torch.float32)(torch.zeros(shape), torch.ones(3), Conditioning())


def test_a_patch_of_another_rank_is_refused():
    with pytest.raises(ValueError, match="each of the 3 axes"):
        Transformer(1, 3, patch=(2, 2), width=8, depth=1, num_heads=1)

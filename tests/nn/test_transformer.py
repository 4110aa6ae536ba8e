from __future__ import annotations

import math

import pytest
import torch

from scm_media.conditioning import Conditioning
from scm_media.nn.transformer import Transformer, from_patches, to_patches
from tests.nn.backbones import LATENTS, RANKS, inputs, transformer


@pytest.mark.parametrize("rank", RANKS)
def test_patches_round_trip(rank):
    latent = torch.randn(3, *LATENTS[rank])
    tokens = to_patches(latent, (2,) * rank)
    assert tokens.shape == (3, latent[0, 0].numel() // 2**rank, 2 * 2**rank)
    assert torch.equal(
        from_patches(tokens, (2,) * rank, [size_option // 2 for size_option in latent.shape[2:]]), latent
    )


@pytest.mark.parametrize(("patch", "grid"), [((3,), (5,)), ((2, 3), (4, 2)), ((2, 1, 3), (2, 5, 3))])
def test_a_token_is_the_channels_and_axes_of_its_patch_in_order(patch, grid):
    latent = torch.randn(2, 3, *(cells * step for cells, step in zip(grid, patch, strict=True)))
    rank = len(patch)
    split = latent.reshape(2, 3, *(size_option for pair in zip(grid, patch, strict=True) for size_option in pair))
    grid_axes, patch_axes = range(2, 2 + 2 * rank, 2), range(3, 3 + 2 * rank, 2)
    expected = split.permute(0, *grid_axes, 1, *patch_axes).reshape(2, math.prod(grid), 3 * math.prod(patch))
    tokens = to_patches(latent, patch)
    assert torch.equal(tokens, expected)
    assert torch.equal(from_patches(tokens, patch, grid), latent)


def test_a_patch_may_differ_by_axis():
    net = Transformer(1, 2, patch=(1, 3), width=8, depth=1, num_heads=1)
    assert net(torch.zeros(2, 1, 5, 6), torch.ones(2), Conditioning()).shape == (2, 1, 5, 6)


def test_a_fresh_network_gives_zero():
    net = Transformer(2, 1, patch=2, width=16, depth=2, num_heads=2)
    assert torch.equal(net(torch.randn(3, 2, 8), torch.rand(3), Conditioning()), torch.zeros(3, 2, 8))


@pytest.mark.parametrize("skip", [False, True])
def test_a_skip_lets_a_patch_have_more_directions_than_the_width(skip):
    """F of a clip is 64 values in one patch, the width 8: without a skip it moves in 8 directions, with it in all."""
    torch.manual_seed(0)
    net = Transformer(1, 1, patch=64, width=8, depth=1, num_heads=2, skip=skip).double()
    for parameter in net.parameters():
        parameter.data = 0.3 * torch.randn_like(parameter)
    u = torch.randn(200, 1, 64, dtype=torch.float64)
    F = net(u, torch.ones(200, dtype=torch.float64), Conditioning()).detach()[:, 0]
    assert torch.linalg.matrix_rank(F - F.mean(0), rtol=1e-8) == (64 if skip else 8)


def test_a_skip_learns_to_take_away_noise_where_there_are_no_data():
    """The data are zero, so that F is cot(t) · u: out of reach for a width of 8 and patches of 64 alone."""
    torch.manual_seed(0)
    errors = {}
    for skip in (False, True):
        net = Transformer(1, 1, patch=64, width=8, depth=1, num_heads=2, skip=skip)
        optimizer = torch.optim.Adam(net.parameters(), 2e-2)
        for _ in range(60):
            u, t = torch.randn(32, 1, 64), 0.5 + torch.rand(32)
            u = u * torch.sin(t)[:, None, None]
            error = (net(u, t, Conditioning()) - u / torch.tan(t)[:, None, None]).square().mean()
            optimizer.zero_grad()
            error.backward()
            optimizer.step()
        errors[skip] = error.item() / float((u / torch.tan(t)[:, None, None]).square().mean())
    assert errors[False] > 0.7
    assert errors[True] < 0.05


@pytest.mark.parametrize("rank", RANKS)
def test_a_skip_carries_a_pair(rank):
    net = transformer(rank, skip=True, label_units={"pitch": 0.5})
    u, t, cond = inputs(rank)
    pair = net(u, t, cond)
    step = 1e-6
    ahead, behind = (net(u.value + s * u.tangent, t.value + s * t.tangent, cond) for s in (step, -step))
    torch.testing.assert_close(pair.tangent, (ahead - behind) / (2 * step), rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(pair.value, net(u.value, t.value, cond))


@pytest.mark.parametrize("shape", [(3, 2, 5), (3, 1, 6), (3, 2, 6, 6)])
def test_latents_that_do_not_fit_are_refused(shape):
    with pytest.raises(ValueError, match=r"patch|expected a latent"):
        transformer(1, torch.float32)(torch.zeros(shape), torch.ones(3), Conditioning())


def test_a_patch_of_another_rank_is_refused():
    with pytest.raises(ValueError, match="each of the 3 axes"):
        Transformer(1, 3, patch=(2, 2), width=8, depth=1, num_heads=1)

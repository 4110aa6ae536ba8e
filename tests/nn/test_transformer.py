from __future__ import annotations

import math

import pytest
import torch

from scm_media.interfaces import Conditioning
from scm_media.nn.transformer import Transformer, from_patches, to_patches
from tests.nn.backbones import LATENTS, RANKS, transformer


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


def test_a_patch_may_differ_by_axis():
    net = Transformer(1, 2, patch=(1, 3), width=8, depth=1, num_heads=1)
    assert net(torch.zeros(2, 1, 5, 6), torch.ones(2), Conditioning()).shape == (2, 1, 5, 6)


def test_a_fresh_network_gives_zero():
    net = Transformer(2, 1, patch=2, width=16, depth=2, num_heads=2)
    assert torch.equal(net(torch.randn(3, 2, 8), torch.rand(3), Conditioning()), torch.zeros(3, 2, 8))


@pytest.mark.parametrize("shape", [(3, 2, 5), (3, 1, 6), (3, 2, 6, 6)])
def test_latents_that_do_not_fit_are_refused(shape):
    with pytest.raises(ValueError, match=r"patch|expected a latent"):
        transformer(1, torch.float32)(torch.zeros(shape), torch.ones(3), Conditioning())


def test_a_patch_of_another_rank_is_refused():
    with pytest.raises(ValueError, match="each of the 3 axes"):
        Transformer(1, 3, patch=(2, 2), width=8, depth=1, num_heads=1)

"""The autoencoder that is causal along the first axis: what depends on what, pieces, stills, and lengths."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from scm_media.nn.autoencoder_layers import CausalConvolution, PerFrameGroupNorm
from scm_media.nn.kl_autoencoder import KLAutoencoder

SHAPES = {
    1: ([[4], [1]], (2, 17), (3, 5)),
    2: ([(3, 2), (1, 2)], (2, 10, 8), (3, 4, 2)),
    3: ([(1, 2, 2), (2, 2, 2), (2, 1, 1)], (2, 13, 8, 8), (3, 4, 2, 2)),
}
"""Rank to strides, shape of a sample and of its latent."""


def small(rank: int, **changes) -> KLAutoencoder:
    """A float64 network whose every weight counts, and whose latents are measured."""
    torch.manual_seed(0)
    strides = SHAPES[rank][0]
    keys = {"strides": strides, "widths": (8, 12, 8)[: len(strides)], "causal": True, **changes}
    network = KLAutoencoder(2, 3, rank=rank, **keys).double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    network.scale.mean.copy_(torch.tensor([0.1, -0.2, 0.0]))
    network.scale.std.copy_(torch.tensor([0.4, 0.5, 0.6]))
    network.scale.trained.fill_(True)
    return network.eval().requires_grad_(False)


def sample(rank: int, num: int = 2) -> torch.Tensor:
    return torch.rand(num, *SHAPES[rank][1], dtype=torch.float64) * 2 - 1


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_one_more_than_a_multiple_of_places_are_one_more_than_as_many_latents(rank):
    network, x = small(rank), sample(rank)
    code = network.posterior(x)[0]
    assert tuple(code.shape[1:]) == SHAPES[rank][2] == network.latent_shape(x.shape[1:])
    assert network.sample_shape(code.shape[1:]) == SHAPES[rank][1]
    assert network.synthesize(code).shape == x.shape
    alone = network.posterior(x[:, :, :1])[0]
    assert alone.shape[2] == 1
    assert network.synthesize(alone).shape[2] == 1


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_what_comes_later_changes_nothing_before_it_to_the_bit(rank):
    network, x = small(rank), sample(rank)
    stride = network.strides[0]
    code = network.posterior(x)[0]
    made = network.synthesize(code)
    for place in range(x.shape[2]):
        changed = x.clone()
        changed[:, :, place] += 0.5
        group = -(-place // stride)
        other = network.posterior(changed)[0]
        assert torch.equal(other[:, :, :group], code[:, :, :group])
        assert (other[:, :, group] - code[:, :, group]).abs().max() > 1e-6
        begins = 0 if group == 0 else 1 + stride * (group - 1)
        again = network.synthesize(other)
        assert torch.equal(again[:, :, :begins], made[:, :, :begins])
        assert (again[:, :, begins] - made[:, :, begins]).abs().max() > 1e-9


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("chunk", [1, 2, 3])
def test_pieces_are_the_whole(rank, chunk):
    network, x = small(rank), sample(rank)
    mean = network.scale.normalize(network.posterior(x)[0])
    made = network.synthesize(network.scale.denormalize(mean)).clamp(-1, 1)
    network.chunk = chunk
    torch.testing.assert_close(network.encode(x), mean, rtol=0, atol=1e-12)
    torch.testing.assert_close(network.decode(mean), made, rtol=0, atol=1e-12)
    lengths = [part.shape[2] for part in network.decode_in_chunks(mean)]
    assert lengths[0] == 1 + network.strides[0] * (chunk - 1)
    assert max(lengths) <= network.strides[0] * chunk
    assert sum(lengths) == x.shape[2]


@pytest.mark.parametrize("strides", [SHAPES[3][0], [(1, 2, 2)]])
def test_the_code_of_a_still_is_that_of_its_picture_through_any_weights(strides):
    network = small(3, strides=strides, widths=(8, 12, 8)[: len(strides)])
    picture = sample(3)[:, :, :1]
    code = network.posterior(picture.expand(-1, -1, 13, -1, -1))[0]
    torch.testing.assert_close(code, network.posterior(picture)[0].expand_as(code), rtol=0, atol=1e-12)
    if network.strides[0] == 1:  # else the frames of a group have weights of their own
        made = network.synthesize(code)
        torch.testing.assert_close(made, made[:, :, :1].expand_as(made), rtol=0, atol=1e-12)


def test_a_place_is_normalised_by_itself_as_group_norm_would_it_alone():
    norm, x = PerFrameGroupNorm(16), torch.randn(2, 16, 5, 4, 3)
    nn.init.normal_(norm.weight)
    reference = nn.GroupNorm(2, 16)
    reference.load_state_dict(norm.state_dict())
    alone = torch.stack([reference(x[:, :, place]) for place in range(5)], 2)
    torch.testing.assert_close(norm(x), alone, rtol=1e-5, atol=1e-6)


def test_a_convolution_sees_its_group_and_two_places_before():
    layer = CausalConvolution(1, 1, (5,), (3,))
    x = torch.randn(1, 1, 10, requires_grad=True)
    y = layer(x)
    assert y.shape[2] == 4
    (slope,) = torch.autograd.grad(y[0, 0, 2], x)
    assert slope[0, 0].nonzero().flatten().tolist() == [2, 3, 4, 5, 6]
    (slope,) = torch.autograd.grad(layer(x)[0, 0, 0], x)
    assert slope[0, 0].nonzero().flatten().tolist() == [0]


def test_a_latent_place_is_valid_where_its_group_is_and_the_first_by_itself():
    network = small(2)
    mask = torch.zeros(1, 1, 10, 8)
    mask[:, :, :1] = 1
    assert network.latent_mask(mask)[0, 0].tolist() == [[1, 1], [0, 0], [0, 0], [0, 0]]
    mask[:, :, 1:6] = 1
    assert network.latent_mask(mask)[0, 0, :, 0].tolist() == [1, 1, 0, 0]
    mask[:, :, 6] = 1
    mask[..., 7] = 0
    assert network.latent_mask(mask)[0, 0].tolist() == [[1, 0], [1, 0], [1, 0], [0, 0]]


def test_lengths_that_do_not_fit_name_those_that_do():
    network = small(3)
    with pytest.raises(ValueError, match=r"16×8×8 .* multiples of 4×4×4 \(along the first of them 1 more: 13, 17\)"):
        network.latent_shape((2, 16, 8, 8))
    with pytest.raises(ValueError, match=r"0×8×8 cannot be encoded"):
        network.encode(torch.zeros(1, 2, 0, 8, 8))
    with pytest.raises(ValueError, match="chunk of the autoencoder must be at least 1"):
        KLAutoencoder(1, causal=True, chunk=0)


def test_gradients_reach_every_weight_and_training_takes_one_place_too():
    network = small(3).requires_grad_()
    for x in (sample(3), sample(3)[:, :, :1]):
        network.zero_grad()
        mean, log_variance = network.posterior(x)
        (network.synthesize(mean).square().mean() + log_variance.mean()).backward()
        assert all(parameter.grad.abs().max() > 0 for parameter in network.parameters())

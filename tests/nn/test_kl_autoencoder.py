"""The convolutional autoencoder on samples of one, two and three axes, and the distances it is trained by."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from scm_media.nn.kl_autoencoder import KLAutoencoder, gaussian_kl, gradient_distance

SHAPES = {
    1: ([[4], [2]], (2, 32), (3, 4), 8),
    2: ([1, (2, 4)], (2, 8, 16), (3, 4, 4), 8),
    3: ([(1, 2, 2), (2, 2, 2)], (2, 4, 8, 8), (3, 2, 2, 2), 32),
}
"""Rank to strides, shape of a sample, of its latent, and how many places of a sample a latent place stands for."""


def small(rank: int = 2, **changes) -> KLAutoencoder:
    """A network of a few thousand weights, which does something: a fresh one's blocks start at zero."""
    network = KLAutoencoder(
        **{"channels": 2, "latent_channels": 3, "rank": rank, "strides": SHAPES[rank][0]}
        | {"widths": (8, 12), "depth": 1, **changes}
    )
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return network


def samples(rank: int, num: int = 40) -> torch.Tensor:
    return torch.randn(num, *SHAPES[rank][1]).clamp(-1, 1)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_shapes_of_every_rank(rank):
    network, sample = small(rank), samples(rank, 5)
    mean, log_variance = network.posterior(sample)
    assert mean.shape[1:] == log_variance.shape[1:] == SHAPES[rank][2] == network.latent_shape(sample.shape[1:])
    assert network.sample_shape(mean.shape[1:]) == SHAPES[rank][1]
    assert network.synthesize(mean).shape == sample.shape


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_places_of_a_sample_meet_the_latent_places_over_them(rank):
    network = small(rank, depth=0).double()
    sample = samples(rank, 1).double().requires_grad_()
    code = network.posterior(sample)[0]
    place = tuple(size - 1 for size in code.shape[2:])
    slope = torch.autograd.grad(code[(0, 0, *place)], sample)[0].abs().sum((0, 1))
    inside = tuple(slice(-stride, None) for stride in network.strides)
    assert (slope[inside] > 0).all()
    code = code.detach().requires_grad_()
    made = network.synthesize(code)
    corner = made[(0, 0, *([-1] * rank))]
    assert torch.autograd.grad(corner, code)[0].abs().sum((0, 1))[place] > 0


@pytest.mark.parametrize("stride", [2, 3])
def test_a_fresh_enlargement_makes_no_checkerboard(stride):
    network = KLAutoencoder(1, 2, rank=1, strides=[stride], widths=(8,), depth=0)
    made = network.synthesize(torch.ones(1, 2, 9))[0, 0]
    middle = made[3 * stride : -3 * stride]
    assert torch.allclose(middle, middle[:1].expand_as(middle), atol=1e-6)


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("sigma_data", [0.5, 1.2])
def test_latents_have_mean_0_and_the_flows_deviation_in_each_channel(rank, sigma_data):
    network, sample = small(rank, sigma_data=sigma_data), samples(rank)
    network.fit(sample.split([7, 20, 13]))
    latent = network.encode(sample).detach().transpose(0, 1).flatten(1)
    assert torch.allclose(latent.mean(1), torch.zeros(3), atol=1e-5)
    assert torch.allclose(latent.std(1, correction=0), torch.full((3,), sigma_data), rtol=1e-5)


def test_decoding_undoes_the_scale_and_clips():
    network, sample = small(), samples(2)
    network.fit([sample])
    straight = network.synthesize(network.posterior(sample)[0])
    assert torch.allclose(network.decode(network.encode(sample)), straight.clamp(-1, 1), atol=1e-5)
    assert network.decode(1e4 * torch.randn(4, *SHAPES[2][2])).abs().max() == 1


def test_encoding_gives_the_mean_and_with_a_generator_draws_from_the_posterior():
    network, sample = small(), samples(2)
    network.fit([sample])
    latent = network.encode(sample)
    assert torch.equal(latent, network.encode(sample))
    drawn = [
        network.encode(sample[:1].repeat(2000, 1, 1, 1), torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)
    ]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    expected = (network.posterior(sample[:1])[1][0] / 2).exp() * (0.5 / network.scale.std)[:, None, None]
    assert torch.allclose(drawn[0].mean(0), latent[0], atol=0.1 * expected.max().item())
    assert torch.allclose(drawn[0].std(0), expected, rtol=0.1)


def test_an_autoencoder_that_was_never_trained_or_loaded_is_refused():
    network, sample = small(), samples(2)
    for refused in (lambda: network.encode(sample), lambda: network.decode(torch.zeros(1, *SHAPES[2][2]))):
        with pytest.raises(ValueError, match=r"never fitted.*stage=autoencoder"):
            refused()
    fitted = small()
    fitted.fit([sample])
    network.load_state_dict(fitted.state_dict())
    assert torch.equal(network.encode(sample), fitted.encode(sample))


def test_a_latent_channel_that_carries_nothing_is_refused_by_name_with_the_remedy():
    network = small()
    with torch.no_grad():
        network.encoder[-1].weight[1] = 0
    with pytest.raises(
        ValueError, match=r"latent channel 1 of 3 has standard deviation 0\.0.*lower autoencoder\.loss\.kl_weight"
    ):
        network.fit([samples(2)])
    with pytest.raises(ValueError, match="never fitted"):
        network.encode(samples(2))


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_a_latent_place_is_valid_where_all_it_stands_for_is(rank):
    network = small(rank)
    mask = torch.ones(2, 1, *SHAPES[rank][1][1:])
    mask[(1, 0, *([0] * rank))] = 0
    latent = network.latent_mask(mask)
    assert latent.shape == (2, 1, *SHAPES[rank][2][1:])
    assert (latent[0] == 1).all()
    assert latent[1][(0, *([0] * rank))] == 0
    assert latent[1].sum() == latent[1].numel() - 1
    assert math.prod(network.strides) == SHAPES[rank][3]


def test_sizes_that_the_strides_do_not_divide_are_refused():
    network = small()
    with pytest.raises(ValueError, match=r"size 8×18 cannot be encoded: .* 2 axes in multiples of 2×4"):
        network.latent_shape((2, 8, 18))
    with pytest.raises(ValueError, match="8×18"):
        network.posterior(torch.zeros(1, 2, 8, 18))
    with pytest.raises(ValueError, match="2 channels and 2 axes"):
        network.posterior(torch.zeros(1, 3, 8, 16))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"rank": 4}, "rank of the autoencoder must be 1, 2 or 3, got 4"),
        ({"strides": [(2, 2, 2), 2]}, "or 2 of them for each level"),
        ({"strides": [0, 2]}, "at least 1"),
        ({"widths": (8,)}, "must be 2 numbers, as many as strides"),
        ({"sigma_data": 0.0}, "sigma_data"),
    ],
)
def test_strides_and_widths_that_do_not_fit_are_refused(changes, expected):
    with pytest.raises(ValueError, match=expected):
        KLAutoencoder(**{"channels": 1, "strides": (2, 2), "widths": (8, 8), **changes})


def test_divergence_is_the_closed_form_of_two_gaussians():
    mean, log_variance = torch.randn(3, 4, 5), torch.randn(3, 4, 5)
    reference = kl_divergence(Normal(mean, (log_variance / 2).exp()), Normal(0.0, 1.0)).flatten(1).mean(1)
    assert torch.allclose(gaussian_kl(mean, log_variance), reference, rtol=1e-5)
    assert gaussian_kl(torch.zeros(1, 2, 3), torch.zeros(1, 2, 3)).item() == 0


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_slopes_of_a_ramp_double_with_each_scale_and_a_shift_has_none(rank):
    ramp = torch.arange(8.0).expand(2, 1, *([8] * rank))
    # Along one of the axes: 1 at the first scale, 2 and 4 at the halved ones.
    assert torch.allclose(gradient_distance(ramp), torch.full((2,), (1 + 2 + 4) / 3 / rank))
    assert gradient_distance(torch.ones(2, 1, *([8] * rank))).abs().max() == 0
    assert gradient_distance(torch.ones(2, 1, *([1] * rank))).shape == (2,)

from __future__ import annotations

import math

import pytest
import torch

from scm_media.ema import PowerEMA
from scm_media.nn.dual import silu
from scm_media.nn.magnitude import (
    SILU_GAIN,
    MPConvolution,
    MPEmbedding,
    MPLinear,
    MPScalarEmbedding,
    mp_concatenate,
    mp_sum,
    renormalize,
    unit_rows,
)
from tests.nn.test_dual import check, pair

EXTENTS = {1: (64,), 2: (12, 12), 3: (4, 6, 6)}


def row_sizes(weight):
    return weight.detach().flatten(1).square().mean(1).sqrt()


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("rank", EXTENTS)
@pytest.mark.parametrize("kernel", [1, 3])
def test_a_convolution_keeps_the_magnitude(rank, kernel):
    torch.manual_seed(7)
    out = MPConvolution(rank, 48, 64, kernel)(noise(16, 48, *EXTENTS[rank]))
    inner = out[(..., *(slice(1, -1),) * rank)]  # the border sees zeros
    assert inner.std().item() == pytest.approx(1, abs=0.05)


def test_matrix_layers_and_embeddings_keep_the_magnitude():
    torch.manual_seed(7)
    assert MPLinear(300, 400)(noise(500, 300)).std().item() == pytest.approx(1, abs=0.03)
    assert MPLinear(300, 400)(noise(500, 300), 3.0).std().item() == pytest.approx(3, abs=0.09)
    assert MPLinear(300, 400)(silu(noise(500, 300)), SILU_GAIN).square().mean().sqrt().item() == pytest.approx(
        1, abs=0.05
    )
    assert row_sizes(MPEmbedding(5, 300)(torch.arange(5))).tolist() == pytest.approx([1] * 5, abs=1e-5)
    assert MPScalarEmbedding(400)(torch.linspace(0, 1.57, 50)).std().item() == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize("fraction", [0.0, 0.3, 0.5])
def test_a_sum_of_independent_signals_keeps_the_magnitude(fraction):
    x, y = noise(100, 100), noise(100, 100, seed=1)
    assert mp_sum(x, y, fraction).std().item() == pytest.approx(1, abs=0.03)
    if fraction == 0:
        assert torch.equal(mp_sum(x, y, fraction), x)


def test_a_concatenation_gives_each_part_the_same_weight():
    x, y = noise(50, 10, 20), noise(50, 90, 20, seed=1)
    both = mp_concatenate(x, y)
    assert both.std().item() == pytest.approx(1, abs=0.03)
    assert both[:, :10].square().sum().item() == pytest.approx(both[:, 10:].square().sum().item(), rel=0.05)


def test_layers_carry_the_tangent():
    torch.manual_seed(7)
    check(MPLinear(4, 5).double(), pair(3, 4))
    check(MPConvolution(2, 3, 4, 3).double(), pair(2, 3, 5, 4))
    check(MPScalarEmbedding(6).double(), pair(3))
    check(lambda x, y: mp_sum(x, y, 0.3), pair(3, 4), pair(3, 4, seed=1))
    check(mp_concatenate, pair(2, 3, 4), pair(2, 5, 4, seed=1))


def test_the_gain_has_a_gradient():
    gain = torch.zeros((), requires_grad=True)
    MPLinear(4, 5)(noise(3, 4), gain).sum().backward()
    assert gain.grad.abs() > 1e-3


def test_renormalizing_brings_rows_back_and_leaves_their_direction():
    torch.manual_seed(7)
    network = torch.nn.Sequential(MPLinear(8, 4), torch.nn.Linear(4, 4))
    before, plain = network[0].weight.detach().clone(), network[1].weight.detach().clone()
    with torch.no_grad():
        network[0].weight.mul_(torch.tensor([[0.5], [2.0], [1.3], [0.9]]))
    renormalize(network)
    torch.testing.assert_close(network[0].weight, before, rtol=1e-5, atol=1e-6)
    assert torch.equal(network[1].weight, plain)


def test_rows_that_are_unit_already_keep_every_bit_and_rows_of_zeros_stay():
    weight = unit_rows(noise(64, 100))
    assert torch.equal(unit_rows(weight), weight)
    assert torch.equal(unit_rows(torch.zeros(2, 3)), torch.zeros(2, 3))


def test_rows_stored_in_16_bits_are_brought_to_unit_in_the_layers_own_width():
    layer = MPLinear(100, 64)
    layer.load_state_dict({"weight": (0.9 * layer.weight.detach()).half()})
    assert layer.weight.dtype == torch.float32
    torch.testing.assert_close(layer.weight.square().mean(1), torch.ones(64), atol=1e-6, rtol=0)


def test_averaged_weights_are_brought_to_unit_rows_when_a_network_takes_them():
    torch.manual_seed(7)
    layer = MPConvolution(2, 3, 6, 3)
    ema = PowerEMA(layer, 0.25)
    for step in range(1, 9):
        with torch.no_grad():
            layer.weight.add_(torch.randn_like(layer.weight), alpha=2.0)
        renormalize(layer)
        ema.update(step)
    average = ema.averaged["weight"].clone()
    assert row_sizes(average).max() < 0.95
    taken = MPConvolution(2, 3, 6, 3)
    taken.load_state_dict(ema.averaged)
    assert row_sizes(taken.weight).tolist() == pytest.approx([1] * 6, abs=1e-6)
    cosine = torch.nn.functional.cosine_similarity(taken.weight.detach().flatten(1), average.flatten(1))
    assert cosine.tolist() == pytest.approx([1] * 6, abs=1e-6)
    assert torch.equal(ema.averaged["weight"], average), "the average itself goes on as it is"


def test_the_weight_is_scaled_by_its_fan_in():
    layer = MPConvolution(2, 3, 6, 3)
    torch.testing.assert_close(layer.scale_weight(2.0), layer.weight * 2 / math.sqrt(27))

from __future__ import annotations

import torch

from scm_media.nn.dual import DualTensor
from scm_media.nn.normalization import AdaptiveDoubleNorm, rms_normalize
from tests.nn.test_dual import check, pair


def test_rms_norm_carries_the_tangent():
    check(rms_normalize, pair(2, 3, 8))


def test_rms_norm_reduces_in_float32():
    x = torch.full((1, 4096), 300.0, dtype=torch.float16)
    torch.testing.assert_close(rms_normalize(x).float(), torch.ones(1, 4096), rtol=1e-3, atol=1e-3)


def make(width=8, cond_width=6):
    torch.manual_seed(0)
    layer = AdaptiveDoubleNorm(width, cond_width).double()
    torch.nn.init.normal_(layer.shift_gain)
    return layer


def test_double_norm_carries_both_tangents():
    check(make(), pair(2, 3, 8), pair(2, 6, seed=1))


def test_double_norm_carries_the_tangent_of_time_alone():
    x = pair(2, 3, 8)
    check(make(), x.value, pair(2, 6, seed=1))


def test_scales_and_shifts_stay_bounded_whatever_the_embedding_does():
    layer = make()
    with torch.no_grad():
        layer.modulation.bias.zero_()
    x, c = torch.randn(2, 3, 8, dtype=torch.float64), torch.randn(2, 6, dtype=torch.float64)
    torch.testing.assert_close(layer(x, 1000 * c), layer(x, c), rtol=1e-3, atol=1e-3)


def test_a_fresh_layer_is_a_norm_that_shifts_nothing():
    layer = AdaptiveDoubleNorm(8, 6)
    zero = layer(torch.zeros(2, 3, 8), torch.randn(2, 6))
    assert torch.equal(zero, torch.zeros(2, 3, 8))
    assert isinstance(layer(DualTensor(torch.ones(2, 3, 8), torch.ones(2, 3, 8)), torch.zeros(2, 6)), DualTensor)

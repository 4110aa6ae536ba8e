from __future__ import annotations

import pytest
import torch

from scm_media.nn.convolution import convolve, double, halve
from tests.nn.test_dual import check, pair

EXTENTS = [(6,), (4, 6), (2, 4, 6)]


@pytest.mark.parametrize("sizes", EXTENTS)
@pytest.mark.parametrize("kernel", [1, 3])
def test_convolution_carries_the_tangent_and_keeps_extents(sizes, kernel):
    weight = torch.randn(5, 3, *(kernel,) * len(sizes), dtype=torch.float64)
    x = pair(2, 3, *sizes)
    assert convolve(x.value, weight).shape == (2, 5, *sizes)
    check(lambda v: convolve(v, weight), x)


@pytest.mark.parametrize("sizes", EXTENTS)
def test_resampling_carries_the_tangent_and_halving_undoes_doubling(sizes):
    x = pair(2, 3, *sizes)
    check(halve, x)
    check(double, x)
    assert double(x.value).shape == (2, 3, *(2 * size_option for size_option in sizes))
    torch.testing.assert_close(halve(double(x.value)), x.value)


def test_halving_takes_the_mean_of_each_block():
    torch.testing.assert_close(halve(torch.arange(8.0).reshape(1, 1, 2, 4)), torch.tensor([[[[2.5, 4.5]]]]))

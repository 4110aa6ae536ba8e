from __future__ import annotations

import pytest
import torch

from scm_media.nn.convolution import convolve, double, halve
from tests.nn.test_pair import check, pair

EXTENTS = [(6,), (4, 6), (2, 4, 6)]


@pytest.mark.parametrize("extents", EXTENTS)
@pytest.mark.parametrize("kernel", [1, 3])
def test_convolution_carries_the_tangent_and_keeps_extents(extents, kernel):
    weight = torch.randn(5, 3, *(kernel,) * len(extents), dtype=torch.float64)
    x = pair(2, 3, *extents)
    assert convolve(x.value, weight).shape == (2, 5, *extents)
    check(lambda v: convolve(v, weight), x)


@pytest.mark.parametrize("extents", EXTENTS)
def test_resampling_carries_the_tangent_and_halving_undoes_doubling(extents):
    x = pair(2, 3, *extents)
    check(halve, x)
    check(double, x)
    assert double(x.value).shape == (2, 3, *(2 * extent for extent in extents))
    torch.testing.assert_close(halve(double(x.value)), x.value)


def test_halving_takes_the_mean_of_each_block():
    torch.testing.assert_close(halve(torch.arange(8.0).reshape(1, 1, 2, 4)), torch.tensor([[[[2.5, 4.5]]]]))

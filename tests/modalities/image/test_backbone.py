"""The named sizes against EDM2's table 2, counted without storage."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from modalities.image.backbone import SIZES, unet
from scm_media.conditioning import Conditioning

PUBLISHED = {"s": (280, 102), "m": (498, 181), "l": (778, 282), "xl": (1119, 406), "xxl": (1523, 552)}
"""Size to millions of parameters and Gflops, a multiply-add counted as one (EDM2, table 2)."""


@pytest.mark.parametrize("size", ["s", *(pytest.param(size, marks=pytest.mark.slow) for size in list(PUBLISHED)[1:])])
def test_parameters_and_operations_are_those_of_the_paper(size):
    million, gigaflops = PUBLISHED[size]
    with torch.device("meta"):
        net = unet(4, size, labels={"class": 1000})
        cond = Conditioning(labels={"class": torch.zeros(1, dtype=torch.int64)})
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            out = net(torch.empty(1, 4, 64, 64), torch.empty(1), cond)
    assert out.shape == (1, 4, 64, 64)
    assert sum(parameter.numel() for parameter in net.parameters()) / 1e6 == pytest.approx(million, rel=0.03)
    assert counter.get_total_flops() / 2 / 1e9 == pytest.approx(gigaflops, rel=0.05)


def test_sizes_grow_and_the_small_ones_are_small():
    with torch.device("meta"):
        counts = {size: sum(p.numel() for p in unet(4, size).parameters()) / 1e6 for size in list(SIZES)[:4]}
    assert list(counts.values()) == sorted(counts.values())
    assert counts["nano"] < 3
    assert 6 < counts["micro"] < 10
    assert 10 < counts["mini"] < 30
    assert 30 < counts["xxs"] < 60


def test_an_unknown_size_is_refused():
    with pytest.raises(ValueError, match=r"backbone\.size must be one of nano, .* got 'xxxl'"):
        unet(3, "xxxl")

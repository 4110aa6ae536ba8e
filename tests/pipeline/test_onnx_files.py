"""Operators that ONNX lacks, by those that it has."""

from __future__ import annotations

import pytest
import torch

from scm_media.pipeline import onnx_files


@pytest.mark.parametrize("function", [torch.cummax, torch.cummin])
@pytest.mark.parametrize("dim", [0, 1, -1])
def test_running_extremes_are_those_of_pytorch(function, dim):
    x = torch.randint(0, 5, (3, 17, 4))
    name = getattr(torch.ops.aten, function.__name__).default
    values, indices = onnx_files._DECOMPOSITIONS[name](x, dim)
    expected = function(x, dim)
    assert torch.equal(values, expected.values) and torch.equal(indices, expected.indices)


@pytest.mark.parametrize("right", [False, True])
@pytest.mark.parametrize("batch", [(), (3,)])
def test_positions_in_a_sequence_are_those_of_pytorch(right, batch):
    sequence = torch.sort(torch.randint(0, 9, (*batch, 7))).values
    x = torch.randint(-1, 11, (3, 5))
    found = onnx_files._DECOMPOSITIONS[torch.ops.aten.searchsorted.Tensor](sequence, x, right=right)
    assert torch.equal(found, torch.searchsorted(sequence, x, right=right))

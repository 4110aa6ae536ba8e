"""Layers that keep the magnitude of what goes through them: unit variance in, about unit variance out.

Source: Karras et al. 2024, "Analyzing and Improving the Training Dynamics of Diffusion Models" (EDM2,
arXiv 2312.02696), section 2.3, equations 47 and 66 (weights), 81 (SiLU), 88 (sum) and 103 (concatenation).

EDM2 normalises weights in forward as well; here only what is stored is normalised, so that forward is a pure function
(recomputation and transforms hold). Three places see to it: a new layer, ``renormalize`` after an optimiser's step,
and every loading of a state: averaged weights are shorter than what they average, and are brought back to unit rows
when a network takes them, however they were averaged.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from scm_media.nn.convolution import convolve
from scm_media.nn.dual import DualTensor, TensorLike, apply_linear, concatenate, full_precision, value_of
from scm_media.nn.embedding import SinusoidalFeatures

SILU_GAIN = 1 / 0.596
"""1 over the root mean square of silu(x) for x ~ N(0, 1): the gain of a layer that follows a SiLU."""

TOLERANCE = 1e-5
"""Rows this near to 1 are left as they are, so that a state that was saved is loaded bit for bit."""


@torch.no_grad()
def unit_rows(weight: Tensor) -> Tensor:
    """The weight with each row (all but the first dimension) brought to a root mean square of 1."""
    num = weight[0].numel()
    dims = tuple(range(1, weight.ndim))
    dtype = torch.promote_types(weight.dtype, torch.float32)
    rms = torch.linalg.vector_norm(weight, dim=dims, keepdim=True, dtype=dtype) / math.sqrt(num)
    scale = torch.where((rms - 1).abs() < TOLERANCE, 1.0, 1 / rms.clamp(min=1e-8))
    return (weight * scale).to(weight.dtype)


class UnitRows(nn.Module):
    """A weight ``shape`` whose rows have a root mean square of 1, as it is stored."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(unit_rows(torch.randn(shape)))

    def scaled(self, gain: float | Tensor = 1.0) -> Tensor:
        """The weight that a signal is multiplied with, gain / sqrt(fan-in) times the stored one."""
        return self.weight * (gain / math.sqrt(self.weight[0].numel()))

    @torch.no_grad()
    def renormalize(self) -> None:
        """Brings the rows back to a root mean square of 1."""
        self.weight.copy_(unit_rows(self.weight))

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        if (given := state_dict.get(f"{prefix}weight")) is not None:
            # In the layer's own width: rows that are stored in 16 bits are not rounded a second time.
            state_dict = {**state_dict, f"{prefix}weight": unit_rows(given.to(self.weight.dtype))}
        super()._load_from_state_dict(state_dict, prefix, *args)


def renormalize(network: nn.Module) -> None:
    """Renormalises every magnitude-preserving weight of a network: what follows each step of its optimiser."""
    for layer in network.modules():
        if isinstance(layer, UnitRows):
            layer.renormalize()


class MPLinear(UnitRows):
    """W x without bias."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(out_features, in_features)

    def forward(self, x: TensorLike, gain: float | Tensor = 1.0) -> TensorLike:
        """Channels ``(..., in_features)`` to ``(..., out_features)``, gain times as large."""
        weight = self.scaled(gain)
        return apply_linear(lambda v: nn.functional.linear(v, weight), x)


class MPConvolution(UnitRows):
    """A convolution of rank 1, 2 or 3 without bias; kernel: its odd extent along each axis."""

    def __init__(self, rank: int, in_channels: int, out_channels: int, kernel: int) -> None:
        super().__init__(out_channels, in_channels, *(kernel,) * rank)

    def forward(self, x: TensorLike, gain: float | Tensor = 1.0) -> TensorLike:
        """``(B, in_channels, *s)`` to ``(B, out_channels, *s)``, gain times as large."""
        return convolve(x, self.scaled(gain))


class MPEmbedding(UnitRows):
    """A vector of root mean square 1 for each of ``num`` classes."""

    def __init__(self, num: int, width: int) -> None:
        super().__init__(num, width)

    def forward(self, index: Tensor) -> Tensor:
        """``(B, width)`` for classes ``(B,)``."""
        return nn.functional.embedding(index, self.weight)


class MPScalarEmbedding(nn.Module):
    """A scalar's sinusoidal features through one matrix layer; float32 under any precision."""

    def __init__(self, width: int, num_frequencies: int = 64) -> None:
        super().__init__()
        self.features = SinusoidalFeatures(num_frequencies)
        self.linear = MPLinear(2 * num_frequencies, width)

    def forward(self, t: TensorLike) -> TensorLike:
        """``(B, width)`` of deviation about 1 for ``(B,)``."""
        with full_precision(t):
            return self.linear(self.features(t))


def mp_sum(x: TensorLike, y: TensorLike, fraction: float) -> TensorLike:
    """((1 − share) x + share y) / sqrt((1 − share)² + share²), for two tensors or two pairs."""
    length = math.hypot(1 - fraction, fraction)
    first, second = (1 - fraction) / length, fraction / length
    value = torch.add(value_of(x) * first, value_of(y), alpha=second)
    if not isinstance(x, DualTensor):
        assert not isinstance(y, DualTensor)
        return value
    assert isinstance(y, DualTensor)
    with torch.no_grad():
        return DualTensor(value, torch.add(x.tangent * first, y.tangent, alpha=second))


def mp_concatenate(x: TensorLike, y: TensorLike) -> TensorLike:
    """x and y ``(B, c, *s)`` side by side, weighted so that each gives half of the sum of squares."""
    num_x, num_y = value_of(x).shape[1], value_of(y).shape[1]
    both = math.sqrt((num_x + num_y) / 2)
    first, second = both / math.sqrt(num_x), both / math.sqrt(num_y)
    return concatenate([apply_linear(lambda v: v * first, x), apply_linear(lambda v: v * second, y)], dim=1)

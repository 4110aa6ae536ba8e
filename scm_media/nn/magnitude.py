"""Magnitude-preserving layers: an input of unit variance gives an output of about unit variance.

Source: Karras et al. 2024, "Analyzing and Improving the Training Dynamics of Diffusion Models" (EDM2,
arXiv 2312.02696), section 2.3, equations 47 and 66 (weights), 81 (SiLU), 88 (sum) and 103 (concatenation).

EDM2 normalises weights in forward as well. Here only the stored weights are normalised, so that forward is a pure
function, as recomputation and function transforms need. A new layer is normalised, ``renormalize`` does it after each
step of the optimiser, and loading a state does it again, because averaged weights are shorter than the weights that
they average.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from scm_media.nn.convolution import convolve
from scm_media.nn.dual import DualTensor, TensorLike, add, apply_linear, concatenate, full_precision, value_of
from scm_media.nn.embedding import SinusoidalFeatures

SILU_GAIN = 1 / 0.596
"""The gain of a layer after a SiLU: 1 over the root mean square of silu(x) for x ~ N(0, 1)."""

TOLERANCE = 1e-5
"""Rows whose root mean square is this near to 1 stay unchanged, so that a saved state is loaded bit for bit."""


@torch.no_grad()
def unit_rows(weight: Tensor) -> Tensor:
    """Returns the weight with each row (all dimensions but the first) scaled to a root mean square of 1."""
    num = weight[0].numel()
    dims = tuple(range(1, weight.ndim))
    dtype = torch.promote_types(weight.dtype, torch.float32)
    rms = torch.linalg.vector_norm(weight, dim=dims, keepdim=True, dtype=dtype) / math.sqrt(num)
    scale = torch.where((rms - 1).abs() < TOLERANCE, 1.0, 1 / rms.clamp(min=1e-8))
    return (weight * scale).to(weight.dtype)


class UnitRows(nn.Module):
    """A layer whose stored weight has rows with a root mean square of 1."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        weight = torch.randn(shape)
        has_values = weight.untyped_storage().device.type != "meta"  # else a large network takes seconds to be counted
        self.weight = nn.Parameter(unit_rows(weight) if has_values else weight)

    def scale_weight(self, gain: float | Tensor = 1.0) -> Tensor:
        """Returns the weight of the forward pass: gain / sqrt(fan-in) times the stored one."""
        return self.weight * (gain / math.sqrt(self.weight[0].numel()))

    @torch.no_grad()
    def renormalize(self) -> None:
        """Scales the rows of the stored weight to a root mean square of 1."""
        self.weight.copy_(unit_rows(self.weight))

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        if (stored := state_dict.get(f"{prefix}weight")) is not None:
            # In the layer's own type, so that rows that are stored in 16 bits are not rounded a second time.
            state_dict = {**state_dict, f"{prefix}weight": unit_rows(stored.to(self.weight.dtype))}
        super()._load_from_state_dict(state_dict, prefix, *args)


class Gains(nn.Module):
    """A module whose gains have one entry, as sharding needs; it also loads those saved without a dimension."""

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        own = {prefix + name for name in self._parameters}
        single = {name: state_dict[name].reshape(1) for name in own & state_dict.keys() if state_dict[name].ndim == 0}
        super()._load_from_state_dict({**state_dict, **single}, prefix, *args)


def renormalize(network: nn.Module) -> None:
    """Renormalises every magnitude-preserving weight of a network; call it after each step of the optimiser."""
    for layer in network.modules():
        if isinstance(layer, UnitRows):
            layer.renormalize()


class MPLinear(UnitRows):
    """A linear layer W x without bias."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(out_features, in_features)

    def forward(self, x: TensorLike, gain: float | Tensor = 1.0) -> TensorLike:
        """Returns ``(..., out_features)`` for ``(..., in_features)``, times the gain."""
        weight = self.scale_weight(gain)
        return apply_linear(lambda v: nn.functional.linear(v, weight), x)


class MPConvolution(UnitRows):
    """A convolution of rank 1, 2 or 3 without bias; kernel: its odd size along each axis."""

    def __init__(self, rank: int, in_channels: int, out_channels: int, kernel: int) -> None:
        super().__init__(out_channels, in_channels, *(kernel,) * rank)

    def forward(self, x: TensorLike, gain: float | Tensor = 1.0) -> TensorLike:
        """Returns ``(B, out_channels, *s)`` for ``(B, in_channels, *s)``, times the gain."""
        return convolve(x, self.scale_weight(gain))


class MPEmbedding(UnitRows):
    """A table of vectors with a root mean square of 1, one for each of ``num`` classes."""

    def __init__(self, num: int, width: int) -> None:
        super().__init__(num, width)

    def forward(self, index: Tensor) -> Tensor:
        """Returns ``(B, width)`` for classes ``(B,)``."""
        return nn.functional.embedding(index, self.weight)


class MPScalarEmbedding(nn.Module):
    """Embeds a scalar by its sinusoidal features and one linear layer, in float32 under any precision."""

    def __init__(self, width: int, num_frequencies: int = 64) -> None:
        super().__init__()
        self.features = SinusoidalFeatures(num_frequencies)
        self.linear = MPLinear(2 * num_frequencies, width)

    def forward(self, t: TensorLike) -> TensorLike:
        """Returns ``(B, width)`` with a standard deviation of about 1 for scalars ``(B,)``."""
        with full_precision(t):
            return self.linear(self.features(t))


def mp_sum(x: TensorLike, y: TensorLike, fraction: float) -> TensorLike:
    """Returns ((1 − f) x + f y) / sqrt((1 − f)² + f²), f = fraction, for two tensors or two dual tensors."""
    length = math.hypot(1 - fraction, fraction)
    first, second = (1 - fraction) / length, fraction / length
    value = torch.add(value_of(x) * first, value_of(y), alpha=second)
    if not isinstance(x, DualTensor):
        assert not isinstance(y, DualTensor)
        return value
    assert isinstance(y, DualTensor)
    with torch.no_grad():
        return DualTensor(value, torch.add(x.tangent * first, y.tangent, alpha=second))


def mp_add(x: TensorLike, y: TensorLike, gain: Tensor) -> TensorLike:
    """Returns (x + g y) / sqrt(1 + g²) for a learned gain g: x itself where g is 0."""
    length = torch.rsqrt(1 + gain.square())
    return add(apply_linear(lambda v: v * length, x), apply_linear(lambda v: v * (gain * length), y))


def mp_concatenate(x: TensorLike, y: TensorLike) -> TensorLike:
    """Returns x and y ``(B, c, *s)`` concatenated, weighted so that each gives half of the sum of squares."""
    num_x, num_y = value_of(x).shape[1], value_of(y).shape[1]
    both = math.sqrt((num_x + num_y) / 2)
    first, second = both / math.sqrt(num_x), both / math.sqrt(num_y)
    return concatenate([apply_linear(lambda v: v * first, x), apply_linear(lambda v: v * second, y)], dim=1)

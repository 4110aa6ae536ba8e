"""A value and its tangent walked through a network together.

A layer gets either a tensor or a ``DualTensor`` and gives back the same. The value keeps its autograd graph, the
tangent has none: the derivative of the network along a direction costs one more pass through each layer, and no second
forward for the gradient. Layers dispatch on the pair openly, one small function an operation, so that they compile.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn
from torch.utils import _pytree


@dataclass(frozen=True)
class DualTensor:
    """A value (with its graph) and its tangent (without), of one shape."""

    value: Tensor
    tangent: Tensor


_pytree.register_pytree_node(
    DualTensor,
    lambda pair: ([pair.value, pair.tangent], None),
    lambda children, _: DualTensor(*children),
    serialized_type_name="scm_media.nn.dual.DualTensor",
)

TensorLike = Tensor | DualTensor
"""What a layer takes and returns."""


def value_of(x: TensorLike) -> Tensor:
    """The value of a pair, or the tensor itself."""
    return x.value if isinstance(x, DualTensor) else x


def full_precision(x: TensorLike) -> AbstractContextManager[object]:
    """A context without autocast: the path of time stays float32, and its tangent."""
    device = value_of(x).device.type
    return nullcontext() if device == "meta" else torch.autocast(device, enabled=False)  # meta knows no autocast


def apply_linear(function: Callable[[Tensor], Tensor], x: TensorLike) -> TensorLike:
    """function(x) for a function that is linear in x (views, rotations, products with weights)."""
    if not isinstance(x, DualTensor):
        return function(x)
    value = function(x.value)
    with torch.no_grad():
        return DualTensor(value, function(x.tangent))


def jvp_op(function: Callable[..., Tensor], *inputs: TensorLike) -> TensorLike:
    """function(*inputs) for any differentiable function: the tangent by forward mode through this one operation."""
    value = function(*(value_of(x) for x in inputs))
    if not any(isinstance(x, DualTensor) for x in inputs):
        return value
    with torch.no_grad():
        primals = tuple(value_of(x).detach() for x in inputs)
        tangents = tuple(x.tangent if isinstance(x, DualTensor) else torch.zeros_like(x) for x in inputs)
        tangent = torch.func.jvp(function, primals, tangents)[1]
    return DualTensor(value, tangent)


def add(x: TensorLike, y: TensorLike) -> TensorLike:
    """x + y; a plain tensor has no tangent."""
    value = value_of(x) + value_of(y)
    if not isinstance(x, DualTensor) and not isinstance(y, DualTensor):
        return value
    with torch.no_grad():
        if isinstance(x, DualTensor) and isinstance(y, DualTensor):
            tangent = x.tangent + y.tangent
        else:
            tangent = next(z.tangent for z in (x, y) if isinstance(z, DualTensor)).expand_as(value)
    return DualTensor(value, tangent)


def multiply(x: TensorLike, y: TensorLike) -> TensorLike:
    """x · y, elementwise, d(xy) = dx · y + x · dy."""
    value = value_of(x) * value_of(y)
    with torch.no_grad():
        if isinstance(x, DualTensor) and isinstance(y, DualTensor):
            tangent = x.tangent * y.value + x.value * y.tangent
        elif isinstance(x, DualTensor):
            tangent = x.tangent * value_of(y)
        elif isinstance(y, DualTensor):
            tangent = x * y.tangent
        else:
            return value
    return DualTensor(value, tangent)


def silu(x: TensorLike) -> TensorLike:
    """x · σ(x), with derivative σ(x) · (1 + x · (1 − σ(x)))."""
    if not isinstance(x, DualTensor):
        return nnf.silu(x)
    value = nnf.silu(x.value)
    with torch.no_grad():
        gate = torch.sigmoid(x.value)
        return DualTensor(value, x.tangent * (gate * (1 + x.value * (1 - gate))))


def concatenate(inputs: list[TensorLike], dim: int) -> TensorLike:
    """The inputs side by side along a dimension."""
    value = torch.cat([value_of(x) for x in inputs], dim)
    if not any(isinstance(x, DualTensor) for x in inputs):
        return value
    with torch.no_grad():
        tangents = [x.tangent if isinstance(x, DualTensor) else torch.zeros_like(x) for x in inputs]
        return DualTensor(value, torch.cat(tangents, dim))


class Linear(nn.Linear):
    """A matrix layer that carries a pair: W x + b, with tangent W dx."""

    def forward(self, x: TensorLike) -> TensorLike:  # type: ignore[override]
        """Channels ``(..., in_features)`` to ``(..., out_features)``."""
        if not isinstance(x, DualTensor):
            return super().forward(x)
        value = super().forward(x.value)
        with torch.no_grad():
            return DualTensor(value, nnf.linear(x.tangent, self.weight))


class Dropout(nn.Module):
    """Dropout with one mask for value and tangent."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        if not 0 <= rate < 1:
            raise ValueError(f"dropout must lie in [0, 1), got {rate}")
        self.rate = rate

    def forward(self, x: TensorLike) -> TensorLike:
        """x with a share ``rate`` of its elements set to zero and the rest scaled up, while training."""
        if not self.training or self.rate == 0:
            return x
        mask = nnf.dropout(torch.ones_like(value_of(x)), self.rate, training=True)
        return multiply(x, mask)

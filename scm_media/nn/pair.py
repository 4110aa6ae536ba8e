"""A value and its tangent walked through a network together.

A layer gets either a tensor or a ``Pair`` and gives back the same. The value keeps its autograd graph, the tangent
has none: the derivative of the network along a direction costs one more pass through each layer, and no second
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
class Pair:
    """A value (with its graph) and its tangent (without), of one shape."""

    value: Tensor
    tangent: Tensor


_pytree.register_pytree_node(
    Pair,
    lambda pair: ([pair.value, pair.tangent], None),
    lambda children, _: Pair(*children),
    serialized_type_name="scm_media.nn.pair.Pair",
)

Signal = Tensor | Pair
"""What a layer takes and returns."""


def value_of(x: Signal) -> Tensor:
    """The value of a pair, or the tensor itself."""
    return x.value if isinstance(x, Pair) else x


def full_precision(x: Signal) -> AbstractContextManager[object]:
    """A context without autocast: the path of time stays float32, and its tangent."""
    device = value_of(x).device.type
    return nullcontext() if device == "meta" else torch.autocast(device, enabled=False)  # meta knows no autocast


def linearly(function: Callable[[Tensor], Tensor], x: Signal) -> Signal:
    """function(x) for a function that is linear in x (views, rotations, products with weights)."""
    if not isinstance(x, Pair):
        return function(x)
    value = function(x.value)
    with torch.no_grad():
        return Pair(value, function(x.tangent))


def locally(function: Callable[..., Tensor], *inputs: Signal) -> Signal:
    """function(*inputs) for any differentiable function: the tangent by forward mode through this one operation."""
    value = function(*(value_of(x) for x in inputs))
    if not any(isinstance(x, Pair) for x in inputs):
        return value
    with torch.no_grad():
        primals = tuple(value_of(x).detach() for x in inputs)
        tangents = tuple(x.tangent if isinstance(x, Pair) else torch.zeros_like(x) for x in inputs)
        tangent = torch.func.jvp(function, primals, tangents)[1]
    return Pair(value, tangent)


def add(x: Signal, y: Signal) -> Signal:
    """x + y; a plain tensor has no tangent."""
    value = value_of(x) + value_of(y)
    if not isinstance(x, Pair) and not isinstance(y, Pair):
        return value
    with torch.no_grad():
        if isinstance(x, Pair) and isinstance(y, Pair):
            tangent = x.tangent + y.tangent
        else:
            tangent = next(z.tangent for z in (x, y) if isinstance(z, Pair)).expand_as(value)
    return Pair(value, tangent)


def multiply(x: Signal, y: Signal) -> Signal:
    """x · y, elementwise, d(xy) = dx · y + x · dy."""
    value = value_of(x) * value_of(y)
    with torch.no_grad():
        if isinstance(x, Pair) and isinstance(y, Pair):
            tangent = x.tangent * y.value + x.value * y.tangent
        elif isinstance(x, Pair):
            tangent = x.tangent * value_of(y)
        elif isinstance(y, Pair):
            tangent = x * y.tangent
        else:
            return value
    return Pair(value, tangent)


def silu(x: Signal) -> Signal:
    """x · σ(x), with derivative σ(x) · (1 + x · (1 − σ(x)))."""
    if not isinstance(x, Pair):
        return nnf.silu(x)
    value = nnf.silu(x.value)
    with torch.no_grad():
        gate = torch.sigmoid(x.value)
        return Pair(value, x.tangent * (gate * (1 + x.value * (1 - gate))))


def concatenate(inputs: list[Signal], dim: int) -> Signal:
    """The inputs side by side along a dimension."""
    value = torch.cat([value_of(x) for x in inputs], dim)
    if not any(isinstance(x, Pair) for x in inputs):
        return value
    with torch.no_grad():
        tangents = [x.tangent if isinstance(x, Pair) else torch.zeros_like(x) for x in inputs]
        return Pair(value, torch.cat(tangents, dim))


class Linear(nn.Linear):
    """A matrix layer that carries a pair: W x + b, with tangent W dx."""

    def forward(self, x: Signal) -> Signal:  # type: ignore[override]
        """Channels ``(..., in_features)`` to ``(..., out_features)``."""
        if not isinstance(x, Pair):
            return super().forward(x)
        value = super().forward(x.value)
        with torch.no_grad():
            return Pair(value, nnf.linear(x.tangent, self.weight))


class Dropout(nn.Module):
    """Dropout with one mask for value and tangent."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        if not 0 <= rate < 1:
            raise ValueError(f"dropout must lie in [0, 1), got {rate}")
        self.rate = rate

    def forward(self, x: Signal) -> Signal:
        """x with a share ``rate`` of its elements set to zero and the rest scaled up, while training."""
        if not self.training or self.rate == 0:
            return x
        mask = nnf.dropout(torch.ones_like(value_of(x)), self.rate, training=True)
        return multiply(x, mask)

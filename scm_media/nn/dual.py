"""Dual tensors, which carry a value and its tangent through a network together.

A layer takes either a tensor or a ``DualTensor`` and returns the same. The value keeps its autograd graph, the tangent
has none: the derivative of the network along a direction costs one more pass through each layer, and the gradient needs
no second forward pass. Each operation checks its input's type in a small function, so that networks compile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd
from torch.utils import _pytree

from scm_media.dispatch import TangentTensor


@dataclass(frozen=True)
class DualTensor:
    """A value (with its graph) and its tangent (without) of the same shape."""

    value: Tensor
    tangent: Tensor


_pytree.register_pytree_node(
    DualTensor,
    lambda dual: ([dual.value, dual.tangent], None),
    lambda children, _: DualTensor(*children),
    serialized_type_name="scm_media.nn.dual.DualTensor",
)

TensorLike = Tensor | DualTensor
Layer = TypeVar("Layer", bound=nn.Module)
"""The input and the output of a layer."""


def value_of(x: TensorLike) -> Tensor:
    """Returns the value of a dual tensor, or the tensor itself."""
    return x.value if isinstance(x, DualTensor) else x


def in_full_precision(layer: Layer) -> Layer:
    """Marks a layer that is called within ``full_precision``, whose weights must stay wide then, and returns it."""
    marked: Any = layer
    marked.in_full_precision = True
    return layer


def full_precision(x: TensorLike) -> AbstractContextManager[object]:
    """Returns a context without autocast, so that time embeddings and their tangents stay in float32."""
    device = value_of(x).device.type
    return nullcontext() if device == "meta" else torch.autocast(device, enabled=False)  # meta has no autocast


def apply_linear(function: Callable[[Tensor], Tensor], x: TensorLike) -> TensorLike:
    """Returns function(x) for a function that is linear in x (views, rotations, products with weights)."""
    if not isinstance(x, DualTensor):
        return function(x)
    value = function(x.value)
    with torch.no_grad():
        return DualTensor(value, function(x.tangent))


def jvp_op(function: Callable[..., Tensor], *inputs: TensorLike) -> TensorLike:
    """Returns function(*inputs) for any differentiable function, whose tangent forward-mode AD computes."""
    if any(isinstance(x, TangentTensor) for x in inputs):
        pairs = [DualTensor(*x.split_off()) if isinstance(x, TangentTensor) else x for x in inputs]
        joined = jvp_op(function, *pairs)
        assert isinstance(joined, DualTensor)
        return TangentTensor.join(joined.value, joined.tangent)
    value = function(*(value_of(x) for x in inputs))
    if not any(isinstance(x, DualTensor) for x in inputs):
        return value
    with torch.no_grad():
        primals = tuple(value_of(x).detach() for x in inputs)
        tangents = tuple(x.tangent if isinstance(x, DualTensor) else torch.zeros_like(x) for x in inputs)
        tangent = torch.func.jvp(function, primals, tangents)[1]
    return DualTensor(value, tangent)


def add(x: TensorLike, y: TensorLike) -> TensorLike:
    """Returns x + y; a plain tensor counts as constant."""
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
    """Returns x · y, element by element, with the tangent dx · y + x · dy."""
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
    """Returns x · σ(x), whose derivative is σ(x) · (1 + x · (1 − σ(x)))."""
    if not isinstance(x, DualTensor):
        return nnf.silu(x)
    value = nnf.silu(x.value)
    with torch.no_grad():
        sigmoid = torch.sigmoid(x.value)
        return DualTensor(value, x.tangent * (sigmoid * (1 + x.value * (1 - sigmoid))))


def concatenate(inputs: list[TensorLike], dim: int) -> TensorLike:
    """Returns the inputs concatenated along a dimension."""
    value = torch.cat([value_of(x) for x in inputs], dim)
    if not any(isinstance(x, DualTensor) for x in inputs):
        return value
    with torch.no_grad():
        tangents = [x.tangent if isinstance(x, DualTensor) else torch.zeros_like(x) for x in inputs]
        return DualTensor(value, torch.cat(tangents, dim))


class Linear(nn.Linear):
    """A linear layer W x + b with the tangent W dx."""

    def forward(self, x: TensorLike) -> TensorLike:  # type: ignore[override]
        """Returns ``(..., out_features)`` for ``(..., in_features)``."""
        if not isinstance(x, DualTensor):
            return super().forward(x)
        value = super().forward(x.value)
        with torch.no_grad():
            return DualTensor(value, nnf.linear(x.tangent, self.weight))


@contextmanager
def without_dropout(network: object) -> Iterator[None]:
    """Switches the dropout of a network off while its block runs; a network without dropout is left alone."""
    modules = network.modules() if isinstance(network, nn.Module) else ()
    # Layers of rate 0 stay as they are: each change of mode makes compiled networks compile once more.
    dropping = [
        each
        for each in modules
        if (isinstance(each, Dropout) and each.rate > 0) or (isinstance(each, _DropoutNd) and each.p > 0)
    ]
    dropping = [each for each in dropping if each.training]
    for each in dropping:
        each.eval()
    try:
        yield
    finally:
        for each in dropping:
            each.train()


class Dropout(nn.Module):
    """Dropout with the same mask for value and tangent."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        if not 0 <= rate < 1:
            raise ValueError(f"dropout must lie in [0, 1), got {rate}")
        self.rate = rate

    def forward(self, x: TensorLike) -> TensorLike:
        """Returns x, in training with a fraction ``rate`` of its elements set to zero and the others scaled up."""
        if not self.training or self.rate == 0:
            return x
        mask = nnf.dropout(torch.ones_like(value_of(x)), self.rate, training=True)
        return multiply(x, mask)

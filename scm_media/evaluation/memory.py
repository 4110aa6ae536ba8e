"""The memory of training steps, counted tensor by tensor; on the device "meta", without having it."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import handle_torch_function, has_torch_function
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class MemoryCounter(TorchDispatchMode):
    """Counts the bytes of all tensors that are alive while its block runs.

    ``peak`` is the most there were at once, with those that were held before (``hold``). Working memory of kernels is
    not counted, nor what the allocator keeps.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._alive: set[int] = set()

    def hold(self, tensors: Iterable[Tensor]) -> None:
        """Counts tensors that exist already."""
        for tensor in tensors:
            self._add(tensor)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with torch._C.DisableTorchFunctionSubclass():  # tensors that carry a tangent have been taken apart already
            made = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(made):
            if isinstance(leaf, Tensor):
                self._add(leaf)
        return made

    def _add(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._alive:
            return
        self._alive.add(key)
        size = storage.nbytes()
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._remove, key, size)

    def _remove(self, key: int, size: int) -> None:
        self._alive.discard(key)
        self.now -= size


class _FusedAttention(torch.autograd.Function):
    """Attention that holds what a fused kernel holds: its inputs, its output and a number for each row."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        made = query.new_empty(*query.shape[:-1], value.shape[-1])
        ctx.save_for_backward(query, key, value, made, query.new_empty(query.shape[:-1], dtype=torch.float32))
        return made

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value, *_ = ctx.saved_tensors
        return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)


@contextmanager
def fused_attention() -> Iterator[None]:
    """Lets attention on the device "meta" hold no matrix of all pairs while its block runs, as fused kernels do.

    PyTorch has no fused kernel there. The value of attention that carries a tangent is computed so too; its tangent, in
    blocks, holds what it holds on any device.
    """
    plain = functional.scaled_dot_product_attention

    def attend(query: Tensor, key: Tensor, value: Tensor, *others: Any, **options: Any) -> Any:
        if not query.is_meta:
            return plain(query, key, value, *others, **options)
        if has_torch_function((query, key, value)):
            return handle_torch_function(attend, (query, key, value), query, key, value, *others, **options)
        return _FusedAttention.apply(*(each.as_subclass(Tensor) for each in (query, key, value)))

    attend.__name__ = plain.__name__  # the rules of tangents go by names
    functional.scaled_dot_product_attention = attend
    try:
        yield
    finally:
        functional.scaled_dot_product_attention = plain


def count_training_memory(
    loss: nn.Module, arguments: tuple[Any, ...], frozen: Iterable[Any] = (), num_copies: int = 3
) -> int:
    """Returns the most bytes that a training step holds at once: weights, gradients, copies and activations.

    loss: returns the loss first. arguments: what the loss is called with. frozen: networks that the loss calls but does
    not have as its modules (a teacher). num_copies: copies in float32 of the trained weights, three for Adam's two
    averages and the average of the weights.
    """
    counter = MemoryCounter()
    networks = [loss, *(each for each in frozen if isinstance(each, nn.Module))]
    counter.hold(each for network in networks for each in (*network.parameters(), *network.buffers()))
    trained = sum(each.numel() for each in loss.parameters() if each.requires_grad)
    copies = torch.empty(num_copies * trained, device=next(loss.parameters()).device)
    counter.hold([copies])
    with counter:
        loss(*arguments)[0].backward()
    loss.zero_grad(set_to_none=True)
    return counter.peak

"""Context parallelism: several ranks share the tokens of each sample, so that long sequences fit.

Each rank of a process group computes on its part of the tokens, from the patches to the last projection. Attention
needs all tokens: there one all-to-all trades a rank's share of the tokens for its share of the heads, and a second one
trades back (DeepSpeed-Ulysses, Jacobs et al. 2023, arXiv 2309.14509, section 3). Where attention runs along one axis
of a grid at a time, an all-to-all trades the axis that is split for the other one, and heads stay whole (Dynamic
Sequence Parallelism, Zhao et al. 2024, arXiv 2403.10266). Rank r holds the positions r · n … (r + 1) · n − 1 of an axis
of L positions, with n = ⌈L / P⌉ for P ranks. Zeros fill the last parts; they are dropped where an axis is whole again,
so that attention over it never sees them.

All ranks of the group call the network with the same input, time and conditioning, and each gets the whole output.

How gradients combine: every function here is linear, and its backward pass is its exact adjoint over all ranks. After
backward, the gradients of a rank are therefore those of the sum of all ranks' losses with respect to that rank's copy
of the parameters, and their average over the ranks is the gradient of the average of the losses. The ranks of a group
compute the same loss, so the average that DDP and FSDP take over all ranks is the gradient that one process without
parallelism has. No rank's own gradients are, before they are averaged. The same holds for gradients of the input.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
import torch.nn.functional as nnf
from torch import Tensor, nn

from scm_media.nn.dual import TensorLike, apply_linear

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

# A context variable would break compiled networks apart: torch 2.11 does not trace it.
_group: ProcessGroup | None = None
_groups: dict[str, ProcessGroup] = {}


@contextmanager
def context_parallel(group: ProcessGroup | None) -> Iterator[None]:
    """Lets the ranks of a process group share the tokens of each sample in the networks that the block calls.

    group: None, or a group of one rank, for no sharing; all threads of the process see it. A network reads the group
    when it is called, and its backward pass may run after the block. Raises ValueError in a process that is not of the
    group.
    """
    global _group
    if group is not None and dist.get_rank(group) < 0:
        raise ValueError(
            f"rank {dist.get_rank()} is not of the process group that shares tokens: each process enters the context "
            "with the group that it belongs to"
        )
    if group is not None:
        _groups[group.group_name] = group
    before, _group = _group, None if group is None or dist.get_world_size(group) == 1 else group
    try:
        yield
    finally:
        _group = before


def current_group() -> ProcessGroup | None:
    """Returns the process group that shares the tokens of each sample, None where they are not shared."""
    return _group


def check_splits(network: nn.Module) -> None:
    """Checks that a network, or one that it wraps, splits its tokens (an attribute ``splits_tokens`` that is true).

    Raises ValueError for any other: each rank would compute all of it.
    """
    if not any(getattr(each, "splits_tokens", False) for each in network.modules()):
        raise ValueError(
            f"{type(network).__name__} cannot share its tokens among ranks, so that each would compute all of it: "
            "context parallelism needs a Transformer or a SpaceTimeTransformer; use data parallelism for others"
        )


def check_heads(num_heads: int, group: ProcessGroup | None) -> None:
    """Raises ValueError where the ranks that share tokens cannot share the heads of attention equally."""
    if group is None or num_heads % (size := dist.get_world_size(group)) == 0:
        return
    *fewer, most = (str(each) for each in range(1, num_heads + 1) if num_heads % each == 0)
    fitting = f"{', '.join(fewer)} or {most}" if fewer else most
    raise ValueError(
        f"attention has num_heads {num_heads}, and {size} ranks share the tokens of each sample: num_heads must be a "
        f"multiple of the number of ranks; take a group of {fitting} ranks, or another backbone.num_heads"
    )


@dataclass(frozen=True)
class TokenSplit:
    """Says how the tokens of a sample lie on the ranks of a group; without a group every rank has all of them.

    length: L, the number of tokens. unit: u, the number of neighbouring tokens that stay together, such as those of a
    frame. A rank holds ``l = ⌈L / (u · P)⌉ · u`` tokens, zeros among them where there are no more.
    """

    group: ProcessGroup | None
    length: int
    unit: int = 1

    def part(self, x: TensorLike, dim: int = -2) -> TensorLike:
        """Returns this rank's ``l`` tokens of x, which has all L along a dimension and is the same on all ranks."""
        return split(x, dim, self.group, self.unit)

    def whole(self, x: TensorLike, dim: int = -2) -> TensorLike:
        """Returns all L tokens, on every rank, where each has ``l`` of them along a dimension."""
        return gather(x, dim, self.length, self.group)


def split(x: TensorLike, dim: int, group: ProcessGroup | None, unit: int = 1) -> TensorLike:
    """Returns this rank's part, ``⌈L / (unit · P)⌉ · unit`` positions, of the L along a dimension of x.

    x is the same on all ranks. Returns x itself without a group.
    """
    if group is None:
        return x
    size, rank = dist.get_world_size(group), dist.get_rank(group)
    return apply_linear(lambda v: _pad(v, dim, size * unit).chunk(size, dim)[rank], x)


def gather(x: TensorLike, dim: int, length: int, group: ProcessGroup | None) -> TensorLike:
    """Returns all positions along a dimension, ``length`` of them, of which each rank has a part, on every rank.

    It is the all-to-all of P copies: its backward pass gives a rank the sum of all ranks' gradients of its part.
    Returns x itself without a group.
    """
    if group is None:
        return x
    size = dist.get_world_size(group)

    def join(part: Tensor) -> Tensor:
        return _join(_all_to_all(part.expand(size, *part.shape), group), dim, length)

    return apply_linear(join, x)


def exchange(x: TensorLike, scatter: int, gather: int, length: int, group: ProcessGroup | None) -> TensorLike:
    """Returns x split along the dimension ``scatter`` and whole along ``gather``, where it was the reverse.

    length: the positions of the whole along ``gather``, fewer than those of all parts where zeros fill the last ones.
    Where the ranks do not divide the positions along ``scatter``, zeros fill the last parts. Returns x itself without a
    group.
    """
    if group is None:
        return x
    size = dist.get_world_size(group)

    def trade(whole: Tensor) -> Tensor:
        dim = scatter % whole.ndim
        parts = _pad(whole, dim, size).unflatten(dim, (size, -1)).movedim(dim, 0)
        return _join(_all_to_all(parts, group), gather, length)

    return apply_linear(trade, x)


def _pad(x: Tensor, dim: int, multiple: int) -> Tensor:
    """Returns x with zeros after it along a dimension, up to the next multiple."""
    missing = -x.shape[dim] % multiple
    after = x.ndim - 1 - dim % x.ndim
    return nnf.pad(x, (*(0, 0) * after, 0, missing)) if missing else x


def _join(parts: Tensor, dim: int, length: int) -> Tensor:
    """Returns parts ``(P, …, n, …)`` one after another along a dimension ``(…, length, …)``."""
    dim = dim % (parts.ndim - 1)
    return parts.movedim(0, dim).flatten(dim, dim + 1).narrow(dim, 0, length)


def _all_to_all(x: Tensor, group: ProcessGroup) -> Tensor:
    """Sends entry j of x ``(P, …)`` to rank j, and returns what rank j sent as entry j. It is its own adjoint."""
    if torch.compiler.is_compiling():
        return _compiled_all_to_all(x, group.group_name)
    return _AllToAll.apply(x, group)


def _trade(x: Tensor, group: ProcessGroup) -> Tensor:
    x = x.contiguous()
    received = torch.empty_like(x)
    dist.all_to_all_single(received, x, group=group)
    return received


class _AllToAll(torch.autograd.Function):
    """Trades the entries of a tensor, of its gradient, and of its tangent in forward mode."""

    @staticmethod
    def forward(x: Tensor, group: ProcessGroup) -> Tensor:
        return _trade(x, group)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.group = inputs[1]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _AllToAll.apply(gradient, ctx.group), None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, _: Any) -> Tensor:
        return _AllToAll.apply(tangent, ctx.group)


# Compilers refuse an autograd function with a rule of forward mode, and torch 2.11 gives one without it no gradient.
@torch.library.custom_op("scm_media::all_to_all", mutates_args=(), schema="(Tensor x, str group) -> Tensor")
def _compiled_all_to_all(x: Tensor, group: str) -> Tensor:
    """Does the same in compiled networks, for which it is one operation with a group's name."""
    return _trade(x, _groups[group])


@_compiled_all_to_all.register_fake
def _(x: Tensor, group: str) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _keep_name(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.group = inputs[1]


def _trade_gradients(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
    return _compiled_all_to_all(gradient, ctx.group), None


_compiled_all_to_all.register_autograd(_trade_gradients, setup_context=_keep_name)

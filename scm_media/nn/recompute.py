"""Gradient checkpointing of blocks that carry dual tensors: activations are computed again in the backward pass."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from scm_media.nn.dual import DualTensor, TensorLike, value_of


class Blocks(nn.Module):
    """A network of blocks, whose activations are computed again in the backward pass where ``recompute`` is true."""

    recompute: bool = False

    def run_block(self, block: nn.Module, *inputs: Any) -> TensorLike:
        """Returns block(*inputs); the inputs' values are all that is kept of it where ``recompute`` is true.

        The second computation leaves the tangent out, since it has no gradient.
        """
        if not self.recompute or not torch.is_grad_enabled():
            return block(*inputs)
        duals = [inputs]

        def run(*values: Any) -> TensorLike:
            return block(*(duals.pop() if duals else values))

        kept = [value_of(each) if isinstance(each, DualTensor) else each for each in inputs]
        return checkpoint(run, *kept, use_reentrant=False)


def repeated_blocks(network: nn.Module) -> Iterator[nn.Module]:
    """Yields the outermost modules that stand in lists, as the blocks of a transformer or of a U-Net's levels do."""
    for child in network.children():
        if isinstance(child, nn.ModuleList):
            yield from (each for each in child if not isinstance(each, nn.ModuleList))
            yield from (block for each in child if isinstance(each, nn.ModuleList) for block in each)
        else:
            yield from repeated_blocks(child)

"""Gradient checkpointing of blocks that carry dual tensors: activations are computed again in the backward pass."""

from __future__ import annotations

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

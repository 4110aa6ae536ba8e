"""Counts the operations of networks: matrix products, convolutions and attention, whichever kernel computes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

UNCOUNTED = ("_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_attention_math_for_mps")
"""Fused attention of ``torch.ops.aten`` that PyTorch's counter takes for nothing."""


def operation_counter() -> FlopCounterMode:
    """Returns a context whose ``get_total_flops()`` is the number of operations in it: two for each multiply-add."""
    mapping = {getattr(torch.ops.aten, name): _attention for name in UNCOUNTED if hasattr(torch.ops.aten, name)}
    return FlopCounterMode(display=False, custom_mapping=mapping)


def count_operations(call: Callable[[], object]) -> int:
    """Returns the operations of a call: those of matrix products, convolutions and attention.

    Compiled networks run as they were written meanwhile, since nothing is counted in kernels of a compiler.
    """
    with torch.compiler.set_stance("force_eager"), operation_counter() as counter:
        call()
    return counter.get_total_flops()


def _attention(q: Sequence[int], k: Sequence[int], v: Sequence[int], *_: Any, **__: Any) -> int:
    """Returns the operations of softmax(q kᵀ) v for heads ``(B, h, L, d)``."""
    return 2 * q[0] * q[1] * q[2] * k[2] * (q[3] + v[3])

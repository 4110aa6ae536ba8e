"""The tangent of attention as one Triton kernel, for GPUs: no matrix of scores is ever written to memory."""

from __future__ import annotations

import importlib.util
import os
from typing import Any

import torch
from torch import Tensor

WIDEST = 256
"""The largest width of a head; wider ones would not fit the memory of a multiprocessor."""
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
VARIABLE = "SCM_MEDIA_ATTENTION_KERNEL"
"""Set to 0, this environment variable leaves the kernel out."""
ENABLED = importlib.util.find_spec("triton") is not None and os.environ.get(VARIABLE) != "0"

Pair = tuple[Tensor, Tensor | None]


def serves(query: Pair, key: Pair, value: Pair, mask: Tensor | None) -> bool:
    """Returns whether the kernel computes this tangent: on a GPU, for heads ``(B, h, L, d)`` and masks of keys."""
    q, k, v = query[0], key[0], value[0]
    if not ENABLED or not q.is_cuda or query[1] is None:
        return False
    alike = q.ndim == k.ndim == v.ndim == 4 and q.shape[:2] == k.shape[:2] == v.shape[:2]
    narrow = max(q.shape[-1], v.shape[-1]) <= WIDEST and q.dtype == k.dtype == v.dtype and q.dtype in DTYPES
    return alike and narrow and (mask is None or is_key_mask(mask))


def is_key_mask(mask: Tensor) -> bool:
    """Returns whether a mask is the same for all heads and queries: true or false for keys, ``(B or 1, 1, 1, N)``."""
    return mask.dtype == torch.bool and mask.ndim == 4 and tuple(mask.shape[1:3]) == (1, 1)


def kernel_tangent(
    query: Pair,
    key: Pair,
    value: Pair,
    out: Tensor,
    scale: float,
    mask: Tensor | None = None,
    causal: bool = False,
) -> Tensor:
    """Returns the tangent ``(B, h, L, e)`` of attention, with the arguments of ``attention_tangent``.

    A program takes a block of queries and goes once over the keys. With the running maximum m of the scores S, it sums
    p = exp(S − m), p dS and p (dS v + dv), and rescales the sums when m rises (online softmax; Milakov & Gimelshein
    2018, arXiv 1805.02867; Dao et al. 2022, arXiv 2205.14135). At the end dO = (Σ p (dS v + dv) − (Σ p dS) O) / Σ p. It
    costs five matrix products, where attention alone costs two. Sums are in float32; rows that see no key get zeros.
    query must have a tangent.
    """
    (q, dq), (k, dk), (v, dv) = query, key, value
    assert dq is not None
    return _kernel_op(q, dq, k, dk, v, dv, out, mask, scale, causal)


@torch.library.custom_op("scm_media::attention_tangent", mutates_args=())
def _kernel_op(
    q: Tensor,
    dq: Tensor,
    k: Tensor,
    dk: Tensor | None,
    v: Tensor,
    dv: Tensor | None,
    out: Tensor,
    mask: Tensor | None,
    scale: float,
    causal: bool,
) -> Tensor:
    import triton

    from scm_media.triton_kernels import attention_tangent_kernel

    batch, heads, length, width = q.shape
    keys, value_width = k.shape[-2], v.shape[-1]
    blocks = _blocks(max(width, value_width), q.element_size())
    # Absent tangents and masks are not read. Whole matrices are copied where heads lie between one another.
    given = (q, dq, k, k if dk is None else dk, v, v if dv is None else dv, out)
    made = torch.empty_like(out, memory_format=torch.contiguous_format)
    seen = q if mask is None else mask.expand(batch, 1, 1, keys).contiguous()
    attention_tangent_kernel[(triton.cdiv(length, blocks["BLOCK_L"]), batch * heads)](
        *(*(each.contiguous() for each in given), made, seen),
        *(heads, length, keys, scale, width, value_width),
        **blocks,
        BLOCK_D=max(16, triton.next_power_of_2(width)),
        BLOCK_E=max(16, triton.next_power_of_2(value_width)),
        CAUSAL=causal,
        HAS_MASK=mask is not None,
        HAS_DK=dk is not None,
        HAS_DV=dv is not None,
        EXACT=q.dtype == torch.float32,
        WIDE=os.environ.get("TRITON_INTERPRET") == "1",
    )
    return made


@_kernel_op.register_fake
def _make_alike(*arguments: Any) -> Tensor:
    """Returns the shape that the kernel's tangent has, for compilers."""
    return torch.empty_like(arguments[6], memory_format=torch.contiguous_format)  # out


def _blocks(width: int, element_size: int) -> dict[str, int]:
    """Returns queries and keys of a block, and warps: less for wide heads and for float32, which fill the registers."""
    if width > 128 or (width > 64 and element_size == 4):
        return {"BLOCK_L": 32, "BLOCK_N": 32, "num_warps": 4}
    if width > 64 or element_size == 4:
        return {"BLOCK_L": 64, "BLOCK_N": 32, "num_warps": 4}
    return {"BLOCK_L": 64, "BLOCK_N": 64, "num_warps": 4}

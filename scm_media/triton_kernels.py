"""Kernels in Triton's language; importing this module needs the package ``triton``."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _tile(start, rows, columns, width, num_rows):
    """Returns rows of a matrix that begins at ``start`` and has ``num_rows`` rows of ``width``; zeros outside of it."""
    inside = (rows < num_rows)[:, None] & (columns < width)[None, :]
    return tl.load(start + rows[:, None] * width + columns[None, :], mask=inside, other=0.0)


@triton.jit
def _product(a, b, EXACT: tl.constexpr, WIDE: tl.constexpr):
    """Returns a b in float32; WIDE: by products in float32, as Triton's interpreter has none of bfloat16."""
    if WIDE:
        a, b = a.to(tl.float32), b.to(tl.float32)
    return tl.dot(a, b, input_precision="ieee" if EXACT or WIDE else "tf32")


@triton.jit
def attention_tangent_kernel(
    q_start,
    dq_start,
    k_start,
    dk_start,
    v_start,
    dv_start,
    out_start,
    made_start,
    mask_start,
    num_heads,
    length,
    keys,
    scale,
    width,
    value_width,
    BLOCK_L: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_E: tl.constexpr,
    CAUSAL: tl.constexpr,
    HAS_MASK: tl.constexpr,
    HAS_DK: tl.constexpr,
    HAS_DV: tl.constexpr,
    EXACT: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Writes the tangent of attention for a block of queries of one head (``attention_kernel.kernel_tangent``).

    All matrices lie whole and one after another, (B · h, L or N, d or e); the mask is (B, N).
    """
    rows = tl.program_id(0) * BLOCK_L + tl.arange(0, BLOCK_L)
    head = tl.program_id(1).to(tl.int64)
    of_queries, of_keys = head * length, head * keys
    in_d, in_e = tl.arange(0, BLOCK_D), tl.arange(0, BLOCK_E)
    q = _tile(q_start + of_queries * width, rows, in_d, width, length)
    dq = _tile(dq_start + of_queries * width, rows, in_d, width, length)
    most = tl.full([BLOCK_L], float("-inf"), tl.float32)
    total, slope = tl.zeros([BLOCK_L], tl.float32), tl.zeros([BLOCK_L], tl.float32)
    summed = tl.zeros([BLOCK_L, BLOCK_E], tl.float32)
    end = tl.minimum(keys, (tl.program_id(0) + 1) * BLOCK_L) if CAUSAL else keys
    for first in range(0, end, BLOCK_N):
        columns = first + tl.arange(0, BLOCK_N)
        k = tl.trans(_tile(k_start + of_keys * width, columns, in_d, width, keys))
        v = _tile(v_start + of_keys * value_width, columns, in_e, value_width, keys)
        scores = _product(q, k, EXACT, WIDE) * scale
        d_scores = _product(dq, k, EXACT, WIDE)
        if HAS_DK:
            dk = tl.trans(_tile(dk_start + of_keys * width, columns, in_d, width, keys))
            d_scores += _product(q, dk, EXACT, WIDE)
        d_scores *= scale
        seen = (columns < keys)[None, :] & (rows < length)[:, None]
        if HAS_MASK:
            shown = tl.load(mask_start + head // num_heads * keys + columns, mask=columns < keys, other=0)
            seen = seen & (shown != 0)[None, :]
        if CAUSAL:
            seen = seen & (columns[None, :] <= rows[:, None])
        scores = tl.where(seen, scores, float("-inf"))
        higher = tl.maximum(most, tl.max(scores, 1))
        shift = tl.where(higher == float("-inf"), 0.0, higher)  # rows that have seen no key yet
        kept = tl.exp(most - shift)
        p = tl.exp(scores - shift[:, None])
        p_slope = p * d_scores
        total = total * kept + tl.sum(p, 1)
        slope = slope * kept + tl.sum(p_slope, 1)
        summed = summed * kept[:, None] + _product(p_slope.to(v.dtype), v, EXACT, WIDE)
        if HAS_DV:
            dv = _tile(dv_start + of_keys * value_width, columns, in_e, value_width, keys)
            summed += _product(p.to(dv.dtype), dv, EXACT, WIDE)
        most = higher
    out = _tile(out_start + of_queries * value_width, rows, in_e, value_width, length)
    tangent = (summed - slope[:, None] * out.to(tl.float32)) / tl.where(total == 0.0, 1.0, total)[:, None]
    places = made_start + of_queries * value_width + rows[:, None] * value_width + in_e[None, :]
    tl.store(places, tangent.to(out.dtype), mask=(rows < length)[:, None] & (in_e < value_width)[None, :])

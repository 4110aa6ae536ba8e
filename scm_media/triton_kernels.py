"""Kernels in Triton's language; importing this module needs the package ``triton``."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _product(a, b, EXACT: tl.constexpr, WIDE: tl.constexpr):
    """Returns a b in float32; WIDE: by products in float32, as Triton's interpreter has none of bfloat16."""
    if WIDE:
        a, b = a.to(tl.float32), b.to(tl.float32)
    return tl.dot(a, b, input_precision="ieee" if EXACT or WIDE else "tf32")


@triton.jit
def attention_tangent_kernel(
    q_ptr,
    dq_ptr,
    k_ptr,
    dk_ptr,
    v_ptr,
    dv_ptr,
    out_ptr,
    made_ptr,
    mask_ptr,
    q_b,
    q_h,
    q_l,
    q_d,
    dq_b,
    dq_h,
    dq_l,
    dq_d,
    k_b,
    k_h,
    k_l,
    k_d,
    dk_b,
    dk_h,
    dk_l,
    dk_d,
    v_b,
    v_h,
    v_l,
    v_d,
    dv_b,
    dv_h,
    dv_l,
    dv_d,
    out_b,
    out_h,
    out_l,
    out_d,
    made_b,
    made_h,
    made_l,
    made_d,
    mask_b,
    mask_n,
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
    """Writes the tangent of attention for a block of queries of one head (``attention_kernel.kernel_tangent``)."""
    rows = tl.program_id(0) * BLOCK_L + tl.arange(0, BLOCK_L)
    head = tl.program_id(1)
    batch, head = (head // num_heads).to(tl.int64), (head % num_heads).to(tl.int64)
    columns, places_d, places_e = tl.arange(0, BLOCK_N), tl.arange(0, BLOCK_D), tl.arange(0, BLOCK_E)
    in_l, in_d, in_e = rows < length, places_d < width, places_e < value_width
    seen_q = in_l[:, None] & in_d[None, :]
    q = tl.load(
        q_ptr + batch * q_b + head * q_h + rows[:, None] * q_l + places_d[None, :] * q_d, mask=seen_q, other=0.0
    )
    dq = tl.load(
        dq_ptr + batch * dq_b + head * dq_h + rows[:, None] * dq_l + places_d[None, :] * dq_d, mask=seen_q, other=0.0
    )
    most = tl.full([BLOCK_L], float("-inf"), tl.float32)
    total, slope = tl.zeros([BLOCK_L], tl.float32), tl.zeros([BLOCK_L], tl.float32)
    summed = tl.zeros([BLOCK_L, BLOCK_E], tl.float32)
    end = tl.minimum(keys, (tl.program_id(0) + 1) * BLOCK_L) if CAUSAL else keys
    for first in range(0, end, BLOCK_N):
        cols = first + columns
        in_n = cols < keys
        seen_k, seen_v = in_d[:, None] & in_n[None, :], in_n[:, None] & in_e[None, :]
        # Keys are read transposed, (d, n).
        k = tl.load(
            k_ptr + batch * k_b + head * k_h + cols[None, :] * k_l + places_d[:, None] * k_d, mask=seen_k, other=0.0
        )
        v = tl.load(
            v_ptr + batch * v_b + head * v_h + cols[:, None] * v_l + places_e[None, :] * v_d, mask=seen_v, other=0.0
        )
        scores = _product(q, k, EXACT, WIDE) * scale
        d_scores = _product(dq, k, EXACT, WIDE)
        if HAS_DK:
            dk = tl.load(
                dk_ptr + batch * dk_b + head * dk_h + cols[None, :] * dk_l + places_d[:, None] * dk_d,
                mask=seen_k,
                other=0.0,
            )
            d_scores += _product(q, dk, EXACT, WIDE)
        d_scores *= scale
        seen = in_n[None, :] & in_l[:, None]
        if HAS_MASK:
            seen = seen & (tl.load(mask_ptr + batch * mask_b + cols * mask_n, mask=in_n, other=0) != 0)[None, :]
        if CAUSAL:
            seen = seen & (cols[None, :] <= rows[:, None])
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
            dv = tl.load(
                dv_ptr + batch * dv_b + head * dv_h + cols[:, None] * dv_l + places_e[None, :] * dv_d,
                mask=seen_v,
                other=0.0,
            )
            summed += _product(p.to(dv.dtype), dv, EXACT, WIDE)
        most = higher
    written = in_l[:, None] & in_e[None, :]
    out = tl.load(
        out_ptr + batch * out_b + head * out_h + rows[:, None] * out_l + places_e[None, :] * out_d,
        mask=written,
        other=0.0,
    )
    total = tl.where(total == 0.0, 1.0, total)
    tangent = (summed - slope[:, None] * out.to(tl.float32)) / total[:, None]
    tl.store(
        made_ptr + batch * made_b + head * made_h + rows[:, None] * made_l + places_e[None, :] * made_d,
        tangent.to(out.dtype),
        mask=written,
    )

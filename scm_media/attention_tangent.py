"""The tangent of attention, in blocks of heads and queries, so that the matrix of all pairs is never held."""

from __future__ import annotations

import torch
from torch import Tensor

from scm_media.attention_kernel import kernel_tangent, serves

NUM_SCORES = {"cpu": 1 << 18, "cuda": 1 << 26}
"""The scores of a block at most, by device: those of a CPU stay in its cache, those of a GPU fill it with work."""
FEWEST_ROWS, MOST_COMPILED = 32, 8
"""Queries of a block at least, and blocks of a compiled call at most, which holds the code of each."""


def attention_tangent(
    query: tuple[Tensor, Tensor | None],
    key: tuple[Tensor, Tensor | None],
    value: tuple[Tensor, Tensor | None],
    out: Tensor,
    scale: float,
    mask: Tensor | None = None,
    causal: bool = False,
) -> Tensor:
    """Returns the tangent of O = softmax(scale · q kᵀ) v, ``(…, L, e)``, without a graph.

    It is dO = (P∘dS) V − rowsum(P∘dS) O + P dV with dS = scale · (dq kᵀ + q dkᵀ) (sCM, Lu & Song 2024, arXiv
    2410.11081, appendix F), whose softmax P is computed in float32 or wider. query: q ``(…, L, d)`` and its tangent,
    None for zeros; key, ``(…, N, d)``, and value, ``(…, N, e)``, likewise. out: O. mask: true where a key may be seen,
    or numbers that are added to the scores; it has the shape of the scores, or 1 in places. causal: query i sees the
    keys up to i.
    """
    if serves(query, key, value, mask):
        with torch.no_grad():
            return kernel_tangent(query, key, value, out, scale, mask, causal)
    heads, length, keys = out.shape[:-2], out.shape[-2], key[0].shape[-2]
    num, limit = heads.numel(), NUM_SCORES.get(out.device.type, NUM_SCORES["cuda"])
    rows = min(length, max(FEWEST_ROWS, limit // max(1, keys)))
    group = max(1, limit // max(1, rows * keys))
    if torch.compiler.is_compiling():
        group = max(group, -(-num // MOST_COMPILED))
        rows = max(rows, -(-length // max(1, MOST_COMPILED // max(1, num))))

    def flat(x: Tensor | None) -> Tensor | None:
        return None if x is None else x.expand(*heads, *x.shape[-2:]).reshape(num, *x.shape[-2:])

    parts = [flat(x) for pair in (query, key, value) for x in pair]
    blocked = flat(out)
    assert blocked is not None
    if mask is not None:
        mask = mask.expand(*heads, *([1] * (2 - mask.ndim)), *mask.shape[-2:])
    with torch.no_grad():
        made = []
        for head in range(0, num, group):
            some = slice(head, head + group)
            q, dq, k, dk, v, dv = (None if x is None else x[some] for x in parts)
            kept = None if mask is None else _select(mask, head, min(head + group, num))
            blocks = []
            for first in range(0, length, rows):
                part = slice(first, first + rows)
                blocks.append(
                    _block(
                        q[:, part],  # type: ignore[index]
                        None if dq is None else dq[:, part],
                        *(k, dk, v, dv),  # type: ignore[arg-type]
                        blocked[some, part],
                        scale,
                        kept if kept is None or kept.shape[-2] == 1 else kept[:, part],
                        first if causal else None,
                    )
                )
            made.append(blocks[0] if len(blocks) == 1 else torch.cat(blocks, -2))
        return (made[0] if len(made) == 1 else torch.cat(made)).reshape(out.shape)


def _select(mask: Tensor, start: int, end: int) -> Tensor:
    """Returns the masks ``(n, L or 1, N or 1)`` of the heads from start to end, of ``(*heads, L or 1, N or 1)``."""
    if mask.ndim == 2:
        return mask[None]
    places = torch.arange(start, end, device=mask.device)
    return mask[torch.unravel_index(places, mask.shape[:-2])]


def _block(
    q: Tensor,
    dq: Tensor | None,
    k: Tensor,
    dk: Tensor | None,
    v: Tensor,
    dv: Tensor | None,
    out: Tensor,
    scale: float,
    mask: Tensor | None,
    first: int | None,
) -> Tensor:
    """Returns the tangent of some queries' output; first: the place of the first, where they see no later keys."""
    scores = (q * scale) @ k.mT
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    if first is not None:
        places = torch.arange(first, first + q.shape[-2], device=q.device)
        scores = scores.masked_fill(places[:, None] < torch.arange(k.shape[-2], device=q.device), -torch.inf)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
    P = torch.softmax(scores, -1)
    tangent = torch.zeros_like(out) if dv is None else P.to(out.dtype) @ dv
    if dq is None and dk is None:
        return tangent
    dS = 0 if dq is None else (dq * scale) @ k.mT
    P *= dS if dk is None else dS + (q * scale) @ dk.mT
    return tangent + P.to(out.dtype) @ v - (P.sum(-1, keepdim=True) * out).to(out.dtype)

"""F and its derivative along a direction, three ways."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from scm_media.interfaces import Backbone, Conditioning
from scm_media.nn.pair import Pair

TangentMethod = Literal["one_pass", "forward", "finite_difference"]


def value_and_tangent(
    backbone: Backbone,
    u: Tensor,
    t: Tensor,
    cond: Conditioning,
    du: Tensor,
    dt: Tensor,
    method: TangentMethod = "one_pass",
    step: float | None = None,
) -> Pair:
    """F(u, t, cond) with its graph, and dF = ∂F/∂u · du + ∂F/∂t · dt without one; cond has zero tangent.

    one_pass: the backbone carries the pair through its layers; it must take ``Pair`` for u and t.
    forward: a second, forward-mode pass (``torch.func.jvp``) for any backbone whose operations have a rule for it.
    finite_difference: central differences of ``step`` (default: the cube root of the type's epsilon).
    Dropout draws the same mask in the value and in its tangent, whichever the way.
    """
    if method == "one_pass":
        out = backbone(Pair(u, du), Pair(t, dt), cond)  # type: ignore[arg-type]
        if not isinstance(out, Pair):
            raise ValueError(
                f"{type(backbone).__name__} returned {type(out).__name__} for a Pair: "
                "write its layers with scm_media.nn, or set tangent_method to 'forward'"
            )
        return out
    if method not in ("forward", "finite_difference"):
        raise ValueError(f"tangent method must be one_pass, forward or finite_difference, got {method!r}")

    devices = [u.device] if u.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        before = torch.random.get_rng_state(), [torch.cuda.get_rng_state(device) for device in devices]
        tangent = _two_pass_tangent(backbone, u, t, cond, du, dt, method, step, before)
    return Pair(backbone(u, t, cond), tangent)


def _two_pass_tangent(backbone, u, t, cond, du, dt, method, step, random_state) -> Tensor:
    def evaluate(u_: Tensor, t_: Tensor) -> Tensor:
        torch.random.set_rng_state(random_state[0])
        if random_state[1]:
            torch.cuda.set_rng_state(random_state[1][0], u.device)
        return backbone(u_, t_, cond)

    with torch.no_grad():
        if method == "forward":
            # The fused attention kernels have no forward-mode rule.
            with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
                return torch.func.jvp(evaluate, (u, t), (du, dt))[1]
        h = torch.finfo(u.dtype).eps ** (1 / 3) if step is None else step
        return (evaluate(u + h * du, t + h * dt) - evaluate(u - h * du, t - h * dt)) / (2 * h)

"""Computes F and its derivative along a direction, in one of three ways."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import replace
from functools import partial
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from scm_media.conditioning import Conditioning
from scm_media.dispatch import TangentError, carry
from scm_media.interfaces import Backbone
from scm_media.nn.dual import DualTensor, full_precision

TangentMethod = Literal["one_pass", "forward", "finite_difference"]

_RandomState = tuple[Tensor, list[Tensor]]
_Point = tuple[Tensor, ...]
"""u and t, or u, t and the target time, or a direction of as many parts."""


def value_and_tangent(
    backbone: Backbone,
    u: Tensor,
    t: Tensor,
    cond: Conditioning,
    du: Tensor,
    dt: Tensor,
    method: TangentMethod = "one_pass",
    step: float | None = None,
) -> DualTensor:
    """Returns F(u, t, cond) with its graph, and dF = ∂F/∂u · du + ∂F/∂t · dt without one.

    The conditioning has zero tangent, but for a target time that is a ``DualTensor`` (s, ds): then ∂F/∂s · ds is added.
    The value is computed under autocast where autocast is on.

    one_pass: The backbone carries value and tangent through its layers together: as a ``DualTensor`` where its
    attribute ``accepts_dual`` is true, as layers of ``scm_media.nn`` do, and else as a ``TangentTensor``, which
    unmodified modules of torch take for a tensor (``scm_media.dispatch``). A backbone that can do neither is handled by
    "forward", and a warning says so once.
    forward: A second, forward-mode pass (``torch.func.jvp``) works for any backbone whose operations have a rule for
    it. On a CPU it leaves autocast and runs in float32.
    finite_difference: Central differences of ``step`` (default: the cube root of the type's epsilon). They leave
    autocast and TF32 on every device, because rounding to 16 bits is larger than the differences.

    Dropout draws the same mask in the value and in its tangent with every method.

    Raises ValueError for an unknown method, a backbone that returns a tensor for dual tensors, an operation without a
    forward-mode rule, and finite differences of 16-bit weights.
    """
    if method not in get_args(TangentMethod):
        raise ValueError(f"tangent method must be one_pass, forward or finite_difference, got {method!r}")
    if method == "one_pass":
        if getattr(backbone, "accepts_dual", False):
            return _check_dual(backbone(DualTensor(u, du), DualTensor(t, dt), cond), backbone)  # type: ignore[arg-type]
        if not getattr(backbone, "needs_forward_mode", False):
            return _dispatch(backbone, cond, *_with_target(cond, (u, t), (du, dt)))
        method = "forward"
    return _two_passes(backbone, cond, *_with_target(cond, (u, t), (du, dt)), method, step)


def _with_target(cond: Conditioning, point: _Point, direction: _Point) -> tuple[_Point, _Point]:
    """Returns a point (u, t) and its direction, with the target time of the conditioning if that has a tangent."""
    target = getattr(cond, "target", None)  # backbones that heed no conditioning are given None by some callers
    if not isinstance(target, DualTensor):
        return point, direction
    return (*point, target.value), (*direction, target.tangent)


def _call(backbone: Backbone, cond: Conditioning, u: Tensor, t: Tensor, target: Tensor | None = None) -> Tensor:
    """Returns F at u and t, and at a target time where there is one in the place of the conditioning's."""
    return backbone(u, t, cond if target is None else replace(cond, target=target))


def _check_dual(out: object, backbone: Backbone) -> DualTensor:
    """Returns the output of a backbone for dual tensors; raises ValueError for any other type."""
    if not isinstance(out, DualTensor):
        raise ValueError(
            f"{type(backbone).__name__} returned {type(out).__name__} for a DualTensor: "
            "write its layers with scm_media.nn, or set tangent_method to 'forward'"
        )
    return out


def _dispatch(backbone: Backbone, cond: Conditioning, point: _Point, direction: _Point) -> DualTensor:
    """Returns F and its derivative by ``scm_media.dispatch``, or by forward mode where that cannot be."""
    before = _random_state(point[0].device)
    try:
        return DualTensor(*carry(partial(_call, backbone, cond), point, direction))
    except TangentError as error:
        reason = str(error)
    _set_random_state(before, point[0].device)
    dual = _two_passes(backbone, cond, point, direction, "forward", None)
    with suppress(AttributeError, TypeError):  # bound methods and slotted objects store nothing and are tried again
        backbone.needs_forward_mode = True  # type: ignore[attr-defined]
    warnings.warn(
        f"{type(backbone).__name__} cannot carry a value and its tangent in one pass ({reason}), so a second, "
        "forward-mode pass computes the tangent; tangent_method 'forward' asks for it without this warning",
        stacklevel=3,
    )
    return dual


def _two_passes(
    backbone: Backbone,
    cond: Conditioning,
    point: _Point,
    direction: _Point,
    method: TangentMethod,
    step: float | None,
) -> DualTensor:
    device = point[0].device
    before = _random_state(device)
    with torch.random.fork_rng([device] if device.type == "cuda" else []), torch.no_grad():

        def evaluate(*moved: Tensor) -> Tensor:
            _set_random_state(before, device)
            return _call(backbone, cond, *moved)

        if method == "forward":
            tangent = _forward_mode(evaluate, backbone, point, direction)
        else:
            tangent = _central_difference(evaluate, backbone, point, direction, step)
    return DualTensor(_call(backbone, cond, *point), tangent)


def _forward_mode(evaluate, backbone: Backbone, point: _Point, direction: _Point) -> Tensor:
    context: AbstractContextManager[object] = nullcontext()
    if point[0].device.type == "cpu" and torch.is_autocast_enabled("cpu") and not _has_narrow_weights(backbone):
        # Under a CPU's autocast group norm gives a value of 16 bits a tangent of 32, which the next layer refuses.
        context = full_precision(point[0])
        point, direction = _at_least_float32(*point), _at_least_float32(*direction)
    try:
        # The fused attention kernels have no forward-mode rule.
        with context, torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH), _ContiguousGroupNorm():
            return torch.func.jvp(evaluate, point, direction)[1]
    except NotImplementedError as error:
        if "forward AD" not in str(error):
            raise
        raise ValueError(
            f"{type(backbone).__name__} has an operation without a forward-mode rule "
            f"({str(error).split(' because')[0]}): set tangent_method to 'finite_difference'"
        ) from error


class _ContiguousGroupNorm(TorchFunctionMode):
    """Makes the inputs of group norm contiguous, because its forward-mode rule views them as such."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if args and (func is nn.functional.group_norm or func is torch.group_norm):
            args = (args[0].contiguous(), *args[1:])
        return func(*args, **(kwargs or {}))


def _central_difference(evaluate, backbone: Backbone, point: _Point, direction: _Point, step: float | None) -> Tensor:
    if _has_narrow_weights(backbone):
        raise ValueError(
            f"finite differences of {type(backbone).__name__} need weights in float32 or float64, got 16 bits: keep "
            "the weights in float32 (precision bf16-mixed does), or set tangent_method to 'forward'"
        )
    point, direction = _at_least_float32(*point), _at_least_float32(*direction)
    h = torch.finfo(point[0].dtype).eps ** (1 / 3) if step is None else step
    ahead, behind = ([x + way * dx for x, dx in zip(point, direction, strict=True)] for way in (h, -h))
    with full_precision(point[0]), _without_tf32():
        return (evaluate(*ahead) - evaluate(*behind)) / (2 * h)


def _at_least_float32(*tensors: Tensor) -> _Point:
    return tuple(tensor.to(torch.promote_types(tensor.dtype, torch.float32)) for tensor in tensors)


def _has_narrow_weights(backbone: Backbone) -> bool:
    backbone = getattr(backbone, "base", backbone)  # the parameters of a LoRA student are not all of its weights
    parameters = backbone.parameters() if isinstance(backbone, nn.Module) else ()
    return any(parameter.dtype in (torch.float16, torch.bfloat16) for parameter in parameters)


@contextmanager
def _without_tf32() -> Iterator[None]:
    """Turns TF32 off, which keeps 10 bits of the mantissa and which convolutions use by default."""
    cudnn, before = torch.backends.cudnn, torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with cudnn.flags(cudnn.enabled, cudnn.benchmark, cudnn.benchmark_limit, cudnn.deterministic, allow_tf32=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


def _random_state(device: torch.device) -> _RandomState:
    return torch.random.get_rng_state(), [torch.cuda.get_rng_state(device)] if device.type == "cuda" else []


def _set_random_state(state: _RandomState, device: torch.device) -> None:
    torch.random.set_rng_state(state[0])
    for of_device in state[1]:
        torch.cuda.set_rng_state(of_device, device)

"""A tensor that carries its tangent through modules that know nothing of it.

``TangentTensor`` is a subclass of ``torch.Tensor``. Each function of torch that gets one arrives at
``__torch_function__`` with the function's name; ``scm_media.dispatch.rules`` says by name how the tangent follows. The
value is computed by the function itself and keeps its autograd graph, so that it is the same to the last bit as without
a tangent; the tangent is computed without a graph. A function without a rule falls back on ``torch.func.jvp`` of that
one function.

The subclass was chosen over a ``TorchFunctionMode`` because it touches nothing but what depends on the inputs, and over
tracing by FX because it follows the control flow of the module as it runs, checkpoints and autocast included.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from types import FunctionType
from typing import Any

import torch
from torch import Tensor

from scm_media.dispatch.rules import (
    CONSTANT,
    LINEAR_PROPERTIES,
    RANDOM,
    RULES,
    WITH_MASK,
    Arguments,
    Rule,
    TangentError,
    dropout,
)

__all__ = ["TangentError", "TangentTensor", "carry", "find_fallbacks"]


class TangentTensor(Tensor):
    """A value, with its graph, that carries a tangent of the same shape, without one. ``join`` makes it."""

    tangent: Tensor

    @staticmethod
    def join(value: Tensor, tangent: Tensor) -> TangentTensor:
        """Returns the value with its tangent; both may be views of other tensors."""
        with torch._C.DisableTorchFunctionSubclass():
            joined = value.as_subclass(TangentTensor)
            joined.tangent = tangent.detach()
        return joined

    def split_off(self) -> tuple[Tensor, Tensor]:
        """Returns the value as a plain tensor, and the tangent."""
        with torch._C.DisableTorchFunctionSubclass():
            return self.as_subclass(Tensor), self.tangent

    def __repr__(self) -> str:  # type: ignore[override]
        """Returns the value and the tangent, as debuggers show them."""
        value, tangent = self.split_off()
        return f"TangentTensor({value}, tangent={tangent})"

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Calls ``func`` on the values, and gives its result the tangent that the function's rule returns."""
        if (body := _body(func)) is not None:
            return body(*args, **(kwargs or {}))
        with torch._C.DisableTorchFunctionSubclass():
            return _call(func, args, dict(kwargs or {}))


def carry(
    function: Callable[..., Tensor], primals: Sequence[Tensor], tangents: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """Returns function(*primals) with its graph, and its derivative along the tangents without one.

    A compiled module runs uncompiled here: torch 2.12 compiles some of these functions to a wrong tangent. Raises
    TangentError where the result does not depend on the primals by functions of torch, as after NumPy.
    """
    joined = list(map(TangentTensor.join, primals, tangents))
    # Without its module nothing is compiled, and asking the compiler would load it.
    result = torch.compiler.disable(function)(*joined) if "torch._dynamo" in sys.modules else function(*joined)
    if not isinstance(result, TangentTensor):
        raise TangentError(
            f"the result, of type {type(result).__name__}, has no tangent: it does not depend on the inputs by "
            "functions of torch alone"
        )
    return result.split_off()


def find_fallbacks() -> list[str]:
    """Returns the names of the functions that fell back on ``torch.func.jvp`` in this process, sorted."""
    return sorted(_FALLBACKS)


_FALLBACKS: set[str] = set()
_BODIES: dict[Callable[..., Any], Callable[..., Any]] = {}
_QUESTIONS = frozenset({"has_torch_function", "has_torch_function_unary", "has_torch_function_variadic"})


def _body(func: Callable[..., Any]) -> Callable[..., Any] | None:
    """Returns a function that torch writes in Python, without the question that leads here; None for any other.

    Its own calls then arrive one by one: the multi-head attention of torch.nn becomes products, views and a softmax.
    Functions that have a rule of their own are left whole.
    """
    if not isinstance(func, FunctionType) or _base_name(func.__name__)[0] in KNOWN:
        return None
    if func in _BODIES:
        return _BODIES[func]
    if not _QUESTIONS & set(func.__code__.co_names):
        return None
    names = {**func.__globals__, **dict.fromkeys(_QUESTIONS, lambda *_: False)}
    body = FunctionType(func.__code__, names, func.__name__, func.__defaults__, func.__closure__)
    body.__kwdefaults__ = func.__kwdefaults__
    _BODIES[func] = body
    return body


def _call(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    name = getattr(func, "__name__", "")
    if name == "__get__":  # a property such as x.shape or x.mT
        if func.__self__.__name__ in LINEAR_PROPERTIES:  # type: ignore[attr-defined]
            return TangentTensor.join(func(args[0]), func(args[0].tangent))
        return func(*args, **kwargs)
    base, in_place = _base_name(name)
    if name in CONSTANT or base in CONSTANT or name == "__set__":
        return func(*args, **kwargs)
    if base == "setitem":
        return _set_item(*args)
    given = Arguments(args, kwargs)
    if base in WITH_MASK:
        return _join(*dropout(func, given))
    if base in RANDOM:
        raise TangentError(f"torch's {base} draws random numbers, which a second call for the tangent would draw anew")
    if in_place or kwargs.get("inplace"):
        return _in_place(func, base, args, kwargs)
    value = func(*args, **kwargs)
    return _join(value, _tangent(func, base, given, value)) if _has_floats(value) else value


def _base_name(name: str) -> tuple[str, bool]:
    """Returns the name that rules go by, and whether the function works in place: add for __radd__ and add_."""
    if name.startswith("__") and name.endswith("__"):
        inner = name[2:-2]
        if inner in _IN_PLACE_OPERATORS:
            return _IN_PLACE_OPERATORS[inner], True
        return _OPERATORS.get(inner, inner), False
    if name.endswith("_") and not name.startswith("_"):
        return _OPERATORS.get(name[:-1], name[:-1]), True
    return _OPERATORS.get(name, name.removeprefix("fft_").removeprefix("linalg_")), False


_OPERATORS = {
    "radd": "add",
    "rmul": "mul",
    "rsub": "rsub",
    "truediv": "div",
    "true_divide": "div",
    "divide": "div",
    "rtruediv": "rdiv",
    "rdiv": "rdiv",
    "multiply": "mul",
    "subtract": "sub",
    "concat": "cat",
    "concatenate": "cat",
    "negative": "neg",
}
_IN_PLACE_OPERATORS = {"iadd": "add", "isub": "sub", "imul": "mul", "itruediv": "div", "idiv": "div", "ipow": "pow"}


KNOWN = RULES.keys() | CONSTANT | WITH_MASK | RANDOM


def _tangent(func: Callable[..., Any], base: str, given: Arguments, value: Any) -> Any:
    rule: Rule | None = RULES.get(base)
    with torch.no_grad():
        tangent = NotImplemented if rule is None else rule(func, given, value)
        if tangent is NotImplemented:
            tangent = _forward_mode(func, base, given)
        return tangent


def _forward_mode(func: Callable[..., Any], base: str, given: Arguments) -> Any:
    """Returns the tangent of one function by forward-mode AD; TangentError where it has no rule for it."""
    if base not in _FALLBACKS:
        _FALLBACKS.add(base)
        warnings.warn(
            f"torch's {base} has no rule in scm_media.dispatch.rules: forward mode computes its tangent, at the cost "
            "of a second call",
            stacklevel=6,
        )
    dual = given.duals()
    primals = tuple(each.as_subclass(Tensor).detach() for each in dual)

    def call(*replaced: Tensor) -> Any:
        args, kwargs = given.replaced(replaced)
        return func(*args, **kwargs)

    kernel = torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH)
    try:
        with kernel:
            return torch.func.jvp(call, primals, tuple(each.tangent for each in dual))[1]
    except (NotImplementedError, RuntimeError) as error:
        raise TangentError(
            f"the tangent of torch's {base} cannot be computed ({str(error).splitlines()[0]})"
        ) from error


def _in_place(func: Callable[..., Any], base: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Applies a function that changes its first argument, whose tangent is changed alike."""
    target = args[0]
    if not isinstance(target, TangentTensor):
        raise TangentError(
            f"it writes a tensor with a tangent into one without ({base}, in place), where the tangent would be lost"
        )
    old = TangentTensor.join(target.as_subclass(Tensor).detach().clone(), target.tangent.clone())
    options = {key: value for key, value in kwargs.items() if key != "inplace"}
    value = func(*args, **kwargs)
    tangent = _tangent(_OUT_OF_PLACE.get(base, func), base, Arguments((old, *args[1:]), options), value)
    tangent = tangent.to(target.tangent.dtype)
    try:
        with torch.no_grad():
            target.tangent.copy_(tangent)
    except RuntimeError:  # an expanded tangent has one element for many places
        target.tangent = tangent.expand_as(target).clone()
    return target


_OUT_OF_PLACE: Mapping[str, Callable[..., Any]] = {
    name: getattr(torch, name)
    for name in ("add", "sub", "mul", "div", "pow", "clamp", "relu", "exp", "sqrt", "sigmoid")
}
"""The functions that take the place of in-place ones in rules and in forward mode."""


def _set_item(target: Tensor, index: Any, content: Any) -> None:
    if not isinstance(target, TangentTensor):
        raise TangentError(
            "it writes a tensor with a tangent into one without (x[index] = y), where the tangent would be lost"
        )
    target.as_subclass(Tensor)[index] = content.as_subclass(Tensor) if isinstance(content, Tensor) else content
    with torch.no_grad():
        target.tangent[index] = content.tangent if isinstance(content, TangentTensor) else 0


def _has_floats(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.is_floating_point() or value.is_complex()
    return isinstance(value, (list, tuple)) and any(map(_has_floats, value))


def _join(value: Any, tangent: Any) -> Any:
    if tangent is None:
        return value
    if isinstance(value, Tensor):
        if not (value.is_floating_point() or value.is_complex()):
            return value
        return TangentTensor.join(value, tangent)
    joined = [_join(each, own) for each, own in zip(value, tangent, strict=True)]
    return type(value)(joined)  # also a result with names, such as that of max(dim)

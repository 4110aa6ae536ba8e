"""How the tangent follows through each function of torch, by the function's name.

A rule is called as ``rule(func, given, value)`` without gradients, with the function, its arguments and the value that
it returned on the values, and returns the tangent, or a list of them for several results. It returns None for a result
that does not depend on the arguments, and NotImplemented where it does not apply. ``rule_for`` adds one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as nnf
from torch import Tensor

from scm_media.attention_tangent import attention_tangent

Rule = Callable[[Callable[..., Any], "Arguments", Any], Any]


class TangentError(ValueError):
    """Says that a module cannot carry a tangent in one pass, and why."""


RULES: dict[str, Rule] = {}


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


LINEAR_PROPERTIES = frozenset({"T", "mT", "H", "mH", "real", "imag", "data"})
CONSTANT = _names(
    """
    size dim numel stride storage_offset is_floating_point is_complex is_contiguous element_size get_device
    data_ptr item tolist __len__ __repr__ __format__ __bool__ __hash__ eq ne lt le gt ge __eq__ __ne__ __lt__
    __le__ __gt__ __ge__ isnan isinf isfinite isclose allclose equal any all argmax argmin argsort nonzero sign
    floor ceil round trunc floor_divide __floordiv__ heaviside
    rand_like randn_like randint_like new_tensor bernoulli multinomial
    requires_grad_ is_same_size is_nonzero result_type can_cast ndimension nelement register_hook is_set_to long
    int short bool byte char logical_and logical_or logical_not __and__ __or__ __invert__ searchsorted bucketize
    is_pinned retain_grad is_inference __contains__ is_neg is_conj numpy __array__ dim_order
    """
)
"""Functions whose results have no tangent: shapes, comparisons, new tensors, and steps whose derivative is 0."""


class Arguments:
    """The arguments of a call, in which tensors with a tangent are found, in lists too."""

    def __init__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.args, self.kwargs = args, kwargs

    def duals(self) -> list[Any]:
        """Returns the tensors that have a tangent, in the order of the arguments."""
        return [each for each in _leaves((self.args, self.kwargs)) if has_tangent(each)]

    def replaced(self, duals: Sequence[Tensor]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Returns the arguments with others in place of the tensors that have a tangent."""
        following = iter(duals)
        return self._map(lambda each: next(following) if has_tangent(each) else each)

    def tangents(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Returns the arguments with tangents in place of floating tensors: zeros for those that have none."""
        return self._map(_tangent_or_zeros)

    def get(self, place: int, name: str, default: Any = None) -> Any:
        """Returns an argument that may be given by place or by name."""
        return self.args[place] if len(self.args) > place else self.kwargs.get(name, default)

    def _map(self, function: Callable[[Any], Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return (
            tuple(_map(function, each) for each in self.args),
            {key: _map(function, each) for key, each in self.kwargs.items()},
        )


def dropout(func: Callable[..., Any], given: Arguments) -> tuple[Tensor, Tensor]:
    """Returns the value and the tangent of a dropout, with the same mask for both."""
    x, (args, kwargs) = given.args[0], given.replaced([torch.ones_like(given.args[0])])
    mask = func(*args, **kwargs)
    return x * mask, x.tangent * mask


RANDOM = frozenset({"alpha_dropout", "feature_alpha_dropout", "rrelu"})
"""Other functions that draw random numbers: a second call for the tangent would draw others."""
WITH_MASK = frozenset({"dropout", "dropout1d", "dropout2d", "dropout3d", "feature_dropout"})
"""Functions that draw a mask, for which ``dropout`` stands in."""


def has_tangent(x: Any) -> bool:
    """Returns whether x is a tensor that carries a tangent."""
    return isinstance(x, Tensor) and getattr(x, "tangent", None) is not None


def tangent_of(x: Any) -> Any:
    """Returns the tangent of x, None without one."""
    return x.tangent if has_tangent(x) else None


def _tangent_or_zeros(x: Any) -> Any:
    if has_tangent(x):
        return x.tangent
    return torch.zeros_like(x) if isinstance(x, Tensor) and x.is_floating_point() else x


def _leaves(x: Any) -> Iterator[Any]:
    if isinstance(x, (list, tuple)):
        for each in x:
            yield from _leaves(each)
    elif isinstance(x, dict):
        yield from _leaves(list(x.values()))
    else:
        yield x


def _map(function: Callable[[Any], Any], x: Any) -> Any:
    if isinstance(x, (list, tuple)):
        mapped = [_map(function, each) for each in x]
        return mapped if isinstance(x, list) else tuple(mapped)
    return function(x)


def rule_for(*names: str) -> Callable[[Rule], Rule]:
    """Returns a decorator that makes a function the rule of these names."""

    def add(rule: Rule) -> Rule:
        for name in names:
            RULES[name] = rule
        return rule

    return add


LINEAR = _names(
    """
    view reshape view_as reshape_as flatten unflatten ravel permute transpose swapaxes swapdims t movedim
    moveaxis contiguous clone detach to cpu float half bfloat16 double type type_as unsqueeze squeeze expand
    expand_as broadcast_to repeat repeat_interleave tile chunk split split_with_sizes tensor_split unbind narrow
    select getitem index_select gather take_along_dim diagonal diag unfold fold view_as_real view_as_complex
    real imag cat stack hstack vstack broadcast_tensors sum mean cumsum flip roll tril triu diff neg positive
    interpolate avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d pixel_shuffle
    pixel_unshuffle fft rfft irfft fft2 ifft ifft2
    """
)
"""Functions that are linear in all their tensors together."""


@rule_for(*LINEAR)
def _linear(func: Callable[..., Any], given: Arguments, value: Any) -> Any:
    args, kwargs = given.tangents()
    return func(*args, **kwargs)


@rule_for("zeros_like", "ones_like", "empty_like", "full_like", "new_zeros", "new_ones", "new_empty", "new_full")
def _allocated(func: Callable[..., Any], given: Arguments, value: Tensor) -> Tensor:
    """New tensors, which modules write into: their tangent is zero, and there to be written."""
    return torch.zeros_like(value)


@rule_for("copy", "fill", "zero")
def _overwritten(func: Callable[..., Any], given: Arguments, value: Tensor) -> Tensor:
    """Functions in place that replace what their first argument held."""
    own = tangent_of(given.get(1, "src", given.kwargs.get("value")))
    return torch.zeros_like(value) if own is None else own.to(value.dtype).expand_as(value)


@rule_for("pad")
def _pad(func: Callable[..., Any], given: Arguments, value: Tensor) -> Any:
    args, kwargs = given.tangents()
    if given.get(2, "mode", "constant") == "constant":
        return nnf.pad(args[0], given.get(1, "pad"))
    return func(*args, **kwargs)


@rule_for("add", "sub", "rsub")
def _sum_of_two(func: Callable[..., Any], given: Arguments, value: Tensor) -> Tensor:
    one, other = given.args[0], given.get(1, "other")
    alpha = given.kwargs.get("alpha", 1)
    reverse = func.__name__ in ("rsub", "__rsub__")
    minus = func.__name__ not in ("add", "__add__", "__radd__", "__iadd__", "add_")
    first, second = (other, one) if reverse else (one, other)
    parts = []
    if (own := tangent_of(first)) is not None:
        parts.append(own)
    if (own := tangent_of(second)) is not None:
        parts.append(own * (-alpha if minus else alpha) if minus or alpha != 1 else own)
    total = parts[0] + parts[1] if len(parts) == 2 else parts[0].expand_as(value).clone()
    return total.to(value.dtype)


@rule_for("mul")
def _product(func: Callable[..., Any], given: Arguments, value: Tensor) -> Tensor:
    one, other = given.args[0], given.get(1, "other")
    return _product_rule(torch.mul, one, other).to(value.dtype)


def _product_rule(function: Callable[[Any, Any], Tensor], one: Any, other: Any) -> Tensor:
    d_one, d_other = tangent_of(one), tangent_of(other)
    if d_other is None:
        return function(d_one, other)
    if d_one is None:
        return function(one, d_other)
    return function(d_one, other) + function(one, d_other)


@rule_for("square")
def _square(func: Callable[..., Any], given: Arguments, value: Tensor) -> Tensor:
    x = given.args[0]
    return 2 * x.as_subclass(Tensor) * x.tangent


@rule_for("div", "rdiv")
def _quotient(func: Callable[..., Any], given: Arguments, value: Tensor) -> Any:
    if given.kwargs.get("rounding_mode") is not None:
        return None
    one, other = given.args[0], given.get(1, "other")
    if func.__name__ in ("__rdiv__", "__rtruediv__"):
        one, other = other, one
    d_one, d_other = tangent_of(one), tangent_of(other)
    top = 0 if d_one is None else d_one
    if d_other is not None:
        top = top - value * d_other
    return (top / other).expand_as(value).to(value.dtype)


@rule_for("matmul", "bmm", "mm", "mv", "dot")
def _matrix_product(func: Callable[..., Any], given: Arguments, value: Tensor) -> Tensor:
    one, other = given.args[0], given.get(1, "other", given.kwargs.get("mat2"))
    return _product_rule(func, one, other)


@rule_for("addmm", "baddbmm")
def _product_and_sum(func: Callable[..., Any], given: Arguments, value: Tensor) -> Tensor:
    added, one, other = given.args[:3]
    beta, alpha = given.kwargs.get("beta", 1), given.kwargs.get("alpha", 1)
    total = torch.zeros_like(value)
    if tangent_of(one) is not None or tangent_of(other) is not None:
        total = alpha * _product_rule(torch.matmul, one, other)
    if (own := tangent_of(added)) is not None and beta:
        total = total + beta * own
    return total


@rule_for("linear", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def _weighted(func: Callable[..., Any], given: Arguments, value: Tensor) -> Tensor:
    """Functions of input, weight and bias: linear in the bias, in the input and in the weight."""
    x, weight, bias = given.args[0], given.get(1, "weight"), given.get(2, "bias")
    rest = given.args[3:]
    options = {key: each for key, each in given.kwargs.items() if key not in ("input", "weight", "bias")}

    def apply(input: Any, kernel: Any) -> Tensor:
        result: Tensor = func(input, kernel, None, *rest, **options)
        return result

    if tangent_of(x) is None and tangent_of(weight) is None:
        total = torch.zeros_like(value)
    else:
        total = _product_rule(apply, x, weight)
    if (own := tangent_of(bias)) is not None:
        total = total + (own if func.__name__ == "linear" else own.reshape(-1, *[1] * (value.ndim - 2)))
    return total


@rule_for("einsum")
def _einsum(func: Callable[..., Any], given: Arguments, value: Tensor) -> Tensor:
    equation, operands = given.args[0], list(given.args[1:])
    if len(operands) == 1 and isinstance(operands[0], (list, tuple)):
        operands = list(operands[0])
    total = None
    for place, operand in enumerate(operands):
        if (own := tangent_of(operand)) is None:
            continue
        term = torch.einsum(equation, *operands[:place], own, *operands[place + 1 :])
        total = term if total is None else total + term
    assert total is not None
    return total


@rule_for("atan2", "arctan2")
def _atan2(func: Callable[..., Any], given: Arguments, value: Tensor) -> Tensor:
    one, other = given.args[0], given.get(1, "other")
    y, x = (each.as_subclass(Tensor) if isinstance(each, Tensor) else each for each in (one, other))
    top = (0 if (own := tangent_of(one)) is None else own * x) - (0 if (own := tangent_of(other)) is None else own * y)
    return top / (x * x + y * y)


@rule_for("where")
def _where(func: Callable[..., Any], given: Arguments, value: Tensor) -> Any:
    if len(given.args) < 3:
        return None if len(given.args) == 1 else NotImplemented
    first, second = given.args[1:3]
    if func is Tensor.where:  # x.where(condition, y)
        condition, first, second = given.args[1], given.args[0], given.args[2]
    else:
        condition = given.args[0]
    own, other = (0.0 if tangent_of(each) is None else tangent_of(each) for each in (first, second))
    return torch.where(condition, own, other).to(value.dtype).expand_as(value)


@rule_for("masked_fill")
def _masked_fill(func: Callable[..., Any], given: Arguments, value: Tensor) -> Tensor:
    x, mask, content = given.args[0], given.get(1, "mask"), given.get(2, "value")
    own = tangent_of(x)
    own = torch.zeros_like(value) if own is None else own.expand_as(value)
    filled = tangent_of(content)
    return own.masked_fill(mask, 0 if filled is None else filled)


@rule_for("nan_to_num")
def _nan_to_num(func: Callable[..., Any], given: Arguments, value: Tensor) -> Tensor:
    x = given.args[0]
    return torch.where(torch.isfinite(x.as_subclass(Tensor)), x.tangent, 0.0)


@rule_for("addcmul")
def _addcmul(func: Callable[..., Any], given: Arguments, value: Tensor) -> Tensor:
    x, one, other = given.args[:3]
    total = torch.zeros_like(value) if tangent_of(x) is None else tangent_of(x)
    if tangent_of(one) is not None or tangent_of(other) is not None:
        total = total + given.kwargs.get("value", 1) * _product_rule(torch.mul, one, other)
    return total.expand_as(value)


@rule_for("lerp")
def _lerp(func: Callable[..., Any], given: Arguments, value: Tensor) -> Tensor:
    start, end, weight = given.args[0], given.get(1, "end"), given.get(2, "weight")
    total = torch.zeros_like(value)
    if (own := tangent_of(start)) is not None:
        total = total + (1 - weight) * own
    if (own := tangent_of(end)) is not None:
        total = total + weight * own
    if (own := tangent_of(weight)) is not None:
        total = total + own * (end - start)
    return total


def _gelu(x: Tensor, given: Arguments) -> Tensor:
    if given.get(1, "approximate", "none") == "none":
        return 0.5 * (1 + torch.erf(x / math.sqrt(2))) + x * torch.exp(-x.square() / 2) / math.sqrt(2 * math.pi)
    inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
    tanh = torch.tanh(inner)
    return 0.5 * (1 + tanh) + 0.5 * x * (1 - tanh.square()) * math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x.square())


def _silu(x: Tensor) -> Tensor:
    sigmoid = torch.sigmoid(x)
    return sigmoid * (1 + x * (1 - sigmoid))


def _power(x: Tensor, given: Arguments) -> Any:
    exponent = given.get(1, "exponent")
    if isinstance(exponent, Tensor):
        return NotImplemented
    return exponent * x ** (exponent - 1) if exponent != 0 else torch.zeros_like(x)


def _clamp(x: Tensor, given: Arguments) -> Any:
    low, high = given.get(1, "min"), given.get(2, "max")
    if any(map(has_tangent, (low, high))):
        return NotImplemented
    inside = torch.ones_like(x, dtype=torch.bool)
    inside &= inside if low is None else x >= low
    inside &= inside if high is None else x <= high
    return inside


def _softplus(x: Tensor, given: Arguments) -> Tensor:
    return torch.sigmoid(given.get(1, "beta", 1) * x)


def _leaky(x: Tensor, given: Arguments) -> Tensor:
    return torch.where(x > 0, torch.ones_like(x), given.get(1, "negative_slope", 0.01))


def _elu(x: Tensor, given: Arguments) -> Tensor:
    alpha = given.get(1, "alpha", 1.0)
    return torch.where(x > 0, torch.ones_like(x), alpha * torch.exp(x))


DERIVATIVES: dict[str, Callable[[Tensor, Tensor, Arguments], Any]] = {
    "sin": lambda x, y, given: torch.cos(x),
    "cos": lambda x, y, given: -torch.sin(x),
    "tan": lambda x, y, given: 1 + y.square(),
    "atan": lambda x, y, given: 1 / (1 + x.square()),
    "exp": lambda x, y, given: y,
    "exp2": lambda x, y, given: y * math.log(2),
    "expm1": lambda x, y, given: y + 1,
    "log": lambda x, y, given: 1 / x,
    "log2": lambda x, y, given: 1 / (x * math.log(2)),
    "log10": lambda x, y, given: 1 / (x * math.log(10)),
    "log1p": lambda x, y, given: 1 / (1 + x),
    "sqrt": lambda x, y, given: 0.5 / y,
    "rsqrt": lambda x, y, given: -0.5 * y / x,
    "reciprocal": lambda x, y, given: -y.square(),
    "abs": lambda x, y, given: torch.sign(x),
    "tanh": lambda x, y, given: 1 - y.square(),
    "sigmoid": lambda x, y, given: y * (1 - y),
    "log_sigmoid": lambda x, y, given: torch.sigmoid(-x),
    "erf": lambda x, y, given: 2 / math.sqrt(math.pi) * torch.exp(-x.square()),
    "relu": lambda x, y, given: (x > 0).to(x.dtype),
    "relu6": lambda x, y, given: ((x > 0) & (x < 6)).to(x.dtype),
    "silu": lambda x, y, given: _silu(x),
    "gelu": lambda x, y, given: _gelu(x, given),
    "softplus": lambda x, y, given: _softplus(x, given),
    "leaky_relu": lambda x, y, given: _leaky(x, given),
    "elu": lambda x, y, given: _elu(x, given),
    "pow": lambda x, y, given: _power(x, given),
    "clamp": lambda x, y, given: _clamp(x, given),
    "clip": lambda x, y, given: _clamp(x, given),
    "clamp_min": lambda x, y, given: x >= given.get(1, "min"),
    "clamp_max": lambda x, y, given: x <= given.get(1, "max"),
}
"""The derivatives of functions of one tensor, element by element: of its values x and results y."""


def _pointwise(func: Callable[..., Any], given: Arguments, value: Tensor) -> Any:
    x: Any = given.args[0] if given.args else given.kwargs.get("input")
    if not has_tangent(x):
        return NotImplemented
    name = func.__name__.strip("_")
    derivative = DERIVATIVES[name if name in DERIVATIVES else name.removeprefix("i")]
    slope = derivative(x.as_subclass(Tensor), value.as_subclass(Tensor), given)
    return slope if slope is NotImplemented else (slope * x.tangent).to(value.dtype)


for _name in DERIVATIVES:
    RULES[_name] = _pointwise


@rule_for("softmax")
def _softmax(func: Callable[..., Any], given: Arguments, value: Tensor) -> Tensor:
    dim, own = given.get(1, "dim", -1), given.args[0].tangent
    product = value * own
    return (product - value * product.sum(dim, keepdim=True)).to(value.dtype)


@rule_for("log_softmax")
def _log_softmax(func: Callable[..., Any], given: Arguments, value: Tensor) -> Tensor:
    dim, own = given.get(1, "dim", -1), given.args[0].tangent
    return own - (value.exp() * own).sum(dim, keepdim=True)


@rule_for("logsumexp")
def _logsumexp(func: Callable[..., Any], given: Arguments, value: Tensor) -> Tensor:
    x, dim, keepdim = given.args[0], given.get(1, "dim"), given.get(2, "keepdim", False)
    return (torch.softmax(x.as_subclass(Tensor), dim) * x.tangent).sum(dim, keepdim=keepdim)


@rule_for("layer_norm")
def _layer_norm(func: Callable[..., Any], given: Arguments, value: Tensor) -> Any:
    x, shape = given.args[0], given.get(1, "normalized_shape")
    weight, bias = given.get(2, "weight"), given.get(3, "bias")
    if not has_tangent(x) or has_tangent(weight) or has_tangent(bias):
        return NotImplemented
    dims = tuple(range(-len(shape), 0))
    tangent = _standardized(_wide(x.as_subclass(Tensor)), _wide(x.tangent), dims, given.get(4, "eps", 1e-5))
    return (tangent if weight is None else tangent * weight).to(value.dtype)


@rule_for("group_norm")
def _group_norm(func: Callable[..., Any], given: Arguments, value: Tensor) -> Any:
    x, groups = given.args[0], given.get(1, "num_groups")
    weight, bias = given.get(2, "weight"), given.get(3, "bias")
    if not has_tangent(x) or has_tangent(weight) or has_tangent(bias):
        return NotImplemented
    values, own = (_wide(each).reshape(len(each), groups, -1) for each in (x.as_subclass(Tensor), x.tangent))
    tangent = _standardized(values, own, (-1,), given.get(4, "eps", 1e-5)).reshape(value.shape)
    if weight is not None:
        tangent = tangent * weight.reshape(1, -1, *[1] * (value.ndim - 2))
    return tangent.to(value.dtype)


def _standardized(x: Tensor, own: Tensor, dims: tuple[int, ...], eps: float) -> Tensor:
    """Returns the tangent of (x − mean) / sqrt(variance + eps), s · (dx − mean(dx) − y · mean(y · dx))."""
    centred = x - x.mean(dims, keepdim=True)
    scale = torch.rsqrt(centred.square().mean(dims, keepdim=True) + eps)
    y = centred * scale
    return scale * (own - own.mean(dims, keepdim=True) - y * (y * own).mean(dims, keepdim=True))


@rule_for("rms_norm")
def _rms_norm(func: Callable[..., Any], given: Arguments, value: Tensor) -> Any:
    x, shape, weight = given.args[0], given.get(1, "normalized_shape"), given.get(2, "weight")
    if not has_tangent(x) or has_tangent(weight):
        return NotImplemented
    eps = given.get(3, "eps")
    eps = torch.finfo(x.dtype).eps if eps is None else eps
    dims = tuple(range(-len(shape), 0))
    wide, own = _wide(x.as_subclass(Tensor)), _wide(x.tangent)
    scale = torch.rsqrt(wide.square().mean(dims, keepdim=True) + eps)
    y = wide * scale
    tangent = scale * (own - y * (y * own).mean(dims, keepdim=True))
    return (tangent if weight is None else tangent * weight).to(value.dtype)


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


@rule_for("scaled_dot_product_attention")
def _attention(func: Callable[..., Any], given: Arguments, value: Tensor) -> Any:
    q, k, v = (given.get(place, name) for place, name in enumerate(("query", "key", "value")))
    mask, rate, causal = given.get(3, "attn_mask"), given.get(4, "dropout_p", 0.0), given.get(5, "is_causal", False)
    if rate:
        raise TangentError("its attention drops probabilities, which a second call for the tangent would draw anew")
    if has_tangent(mask):
        return NotImplemented
    scale = given.kwargs.get("scale")
    scale = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
    query, key, values = ((each.as_subclass(Tensor), tangent_of(each)) for each in (q, k, v))
    if given.kwargs.get("enable_gqa") and q.shape[-3] != k.shape[-3]:
        key, values = (_repeat(each, q.shape[-3] // k.shape[-3]) for each in (key, values))
    return attention_tangent(query, key, values, value, scale, mask, bool(causal))


def _repeat(pair: tuple[Tensor, Tensor | None], times: int) -> tuple[Tensor, Tensor | None]:
    """Returns heads and their tangent, each head as often as queries share it."""
    x, dx = pair
    return x.repeat_interleave(times, -3), None if dx is None else dx.repeat_interleave(times, -3)


@rule_for("max", "min", "topk", "sort")
def _selected(func: Callable[..., Any], given: Arguments, value: Any) -> Any:
    if isinstance(value, Tensor):
        return NotImplemented
    dim = given.get(2, "dim", -1) if func.__name__ == "topk" else given.get(1, "dim", -1)
    own, indices = given.args[0].tangent, value[1]
    if indices.ndim < own.ndim:
        return [own.gather(dim, indices.unsqueeze(dim)).squeeze(dim), None]
    return [own.gather(dim, indices), None]


@rule_for("norm", "vector_norm")
def _norm(func: Callable[..., Any], given: Arguments, value: Tensor) -> Any:
    order, dim, keepdim = (
        given.get(1, "p", given.kwargs.get("ord", 2)),
        given.get(2, "dim"),
        given.get(3, "keepdim", False),
    )
    if order not in (2, 2.0, None, "fro") or dim is None:
        return NotImplemented
    x = given.args[0]
    y = value if keepdim else torch.linalg.vector_norm(x.as_subclass(Tensor), 2, dim, True)
    tangent = (x.as_subclass(Tensor) * x.tangent).sum(dim, keepdim=keepdim)
    return tangent / (y if keepdim else value)

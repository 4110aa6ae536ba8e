"""The call of a TrigFlow backbone around a network of another framework; ``scm_media.teachers`` holds the equations."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from scm_media.conditioning import Conditioning
from scm_media.nn.dual import TensorLike, apply_linear, jvp_op, value_of
from scm_media.nn.embedding import PlainConditioning, as_conditioning
from scm_media.trigflow import broadcast_time

if TYPE_CHECKING:
    from scm_media.prompts import PromptBank

Call = Callable[[Any, Any, Any, Conditioning], Any]
"""``call(network, y, time, cond)`` returns the network's prediction ``(B, c, *s)``."""


class ChangeOfVariables(nn.Module):
    """A network with the call of a TrigFlow backbone; each subclass defines one change of variables.

    network: called as ``call(network, y, time, cond)`` with y ``(B, c, *s)`` in the dtype of the network's parameters
    and times ``(B,)``. Without a ``call`` it is called as network(y, time), or network(y, time, label) where the
    conditioning has a label or the network's signature asks for a third argument (None without a label, as the networks
    of EDM and EDM2 take it). Raises ValueError for a sigma_data that is not positive; when called, for several labels,
    tokens and dense conditioning, which only a ``call`` can pass on, and for an output of another shape.
    """

    singular: ClassVar[tuple[bool, bool]] = (False, False)
    """True for t = 0 and t = π/2 if the equations divide by zero there; t is clamped away from such an end."""

    takes_any_dtype: ClassVar[bool] = True
    """The network may be in 16 bits while u and t are wider; samplers then leave u as it is."""

    def __init__(self, network: nn.Module, sigma_data: float, call: Call | None = None) -> None:
        super().__init__()
        if not (sigma_data > 0 and math.isfinite(sigma_data)):
            raise ValueError(f"sigma_data must be a positive standard deviation, got {sigma_data}")
        self.network, self.sigma_data = network, float(sigma_data)
        self.call = call
        self.lora_switch: Any = None  # says which LoRA is on (``scm_media.adapters.lora``)
        self.prompts: PromptBank | None = None  # looks up the embeddings of the label ``prompt``
        self.null_label = True  # whether the network knows samples without a label, for guidance by labels
        self._needs_label = _num_required(network) > 2

    @property
    def time_range(self) -> tuple[float, float]:
        """Returns the times in radians of the least and the most noise that the network's own time reaches."""
        return 0.0, math.pi / 2

    def forward(self, u: TensorLike, t: TensorLike, cond: PlainConditioning = None) -> TensorLike:
        """Returns F(u, t) ``(B, c, *s)`` for u ``(B, c, *s)`` and t ``(B,)`` in radians."""
        dtype = value_of(u).dtype
        t = jvp_op(self._clamp, t)
        y = apply_linear(self._to_network_dtype, jvp_op(lambda u_, t_: broadcast_time(self.scale(t_), u_) * u_, u, t))
        call = self._call_network if self.call is None else self.call
        cond = as_conditioning(cond, self.network)
        if self.prompts is not None:
            cond = self.prompts.condition(cond)
        prediction = call(self.network, y, jvp_op(self.network_time, t), cond)
        self._check(prediction, y)
        F = jvp_op(lambda p, u_, t_: self.field(p.to(u_.dtype), u_, broadcast_time(t_, u_)), prediction, u, t)
        return apply_linear(lambda v: v.to(dtype), F)

    def scale(self, t: Tensor) -> Tensor:
        """Returns y / u ``(B,)``."""
        raise NotImplementedError

    def network_time(self, t: Tensor) -> Tensor:
        """Returns the network's own time ``(B,)``."""
        raise NotImplementedError

    def field(self, prediction: Tensor, u: Tensor, t: Tensor) -> Tensor:
        """Returns F ``(B, c, *s)`` from the network's prediction, for t ``(B, 1, …)``."""
        raise NotImplementedError

    def _call_network(self, network: Any, y: Any, time: Any, cond: Conditioning) -> Any:
        if cond.tokens is not None or cond.concat is not None:
            raise ValueError(
                f"{type(self).__name__} passes one label to the network, and no tokens or dense conditioning: give "
                "call=, a function (network, y, time, cond) that returns the prediction"
            )
        label = cond.label
        return network(y, time) if label is None and not self._needs_label else network(y, time, label)

    def _clamp(self, t: Tensor) -> Tensor:
        t = t.to(torch.promote_types(t.dtype, torch.float32))
        margin = math.sqrt(torch.finfo(t.dtype).eps)
        (low, high), (at_zero, at_half_pi) = self.time_range, self.singular
        return t.clamp(max(low, margin * at_zero), min(high, math.pi / 2 - margin * at_half_pi))

    def _to_network_dtype(self, y: Tensor) -> Tensor:
        parameters = self.network.parameters() if isinstance(self.network, nn.Module) else ()
        return y.to(next((each.dtype for each in parameters if each.is_floating_point()), y.dtype))

    def _check(self, prediction: Any, y: TensorLike) -> None:
        shape = getattr(value_of(prediction), "shape", None)
        if shape != value_of(y).shape:
            got = type(prediction).__name__ if shape is None else tuple(shape)
            raise ValueError(
                f"{type(self.network).__name__} returned {got} for an input {tuple(value_of(y).shape)}: give call=, a "
                "function (network, y, time, cond) that returns the prediction alone (.sample of diffusers, without "
                "the channels of a learned variance)"
            )


def _num_required(network: Any) -> int:
    """Returns how many arguments a network cannot be called without; 0 where it does not say."""
    try:
        parameters = inspect.signature(getattr(network, "forward", network)).parameters.values()
    except (TypeError, ValueError):
        return 0
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(each.default is each.empty and each.kind in positional for each in parameters)

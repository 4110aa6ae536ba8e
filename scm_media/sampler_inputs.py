"""The inputs that all samplers share: the flow, the noise, the conditioning and the times, each with a default."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from scm_media.conditioning import Conditioning
from scm_media.interfaces import Backbone
from scm_media.nn.embedding import PlainConditioning, as_conditioning
from scm_media.trigflow import TrigFlow, wrapped_attribute

Noise = Callable[[int], Tensor]
Seed = int | torch.Generator


@dataclass(frozen=True)
class Evaluator:
    """A model with everything that one sampling run calls it with; ``noise(i)`` returns noise ``(B, c, *s)``."""

    model: Backbone
    flow: TrigFlow
    noise: Noise
    cond: Conditioning

    def field(self, x: Tensor, time: float, target: float | None = None) -> Tensor:
        """Returns F ``(B, c, *s)`` at x ``(B, c, *s)`` and one time for the batch, in the dtype of x.

        target: the time that a flow map goes to; None for networks that take none, and for 0.
        """
        u = x / self.flow.sigma_data
        if (narrow := _narrow_dtype(self.model)) is not None:
            u = u.to(narrow)
        cond = self.cond if target is None else replace(self.cond, target=batch_time(target, x))
        return self.model(u, batch_time(time, x), cond).to(x.dtype)


@contextmanager
def evaluator(
    model: Backbone,
    flow: TrigFlow | None,
    noise: Noise | Tensor | None,
    cond: PlainConditioning,
    shape: Sequence[int] | None,
    seed: Seed | None,
) -> Iterator[Evaluator]:
    """Yields an ``Evaluator`` whose model is in evaluation mode; its layers go back to their own mode afterwards."""
    flow = TrigFlow.of(model) if flow is None else flow
    parameter = _first_parameter(model)
    device = parameter.device if parameter is not None else noise.device if isinstance(noise, Tensor) else None
    if noise is None or isinstance(noise, Tensor):
        draw = _noise_function(model, flow, noise, shape, seed)
    elif shape is None and seed is None:
        draw = noise
    else:
        raise ValueError("noise is a function, which decides shape and values: leave shape= and seed= out")
    layers = [layer for layer in model.modules() if layer.training] if isinstance(model, nn.Module) else []
    try:
        for layer in layers:
            layer.training = False
        yield Evaluator(model, flow, draw, as_conditioning(cond, model, device))
    finally:
        for layer in layers:
            layer.training = True


def sigma_range(model: Backbone, flow: TrigFlow) -> tuple[float, float]:
    """Returns the noise levels (0.002, 80), narrowed to those that the model's ``time_range`` reaches."""
    low, high = wrapped_attribute(model, "time_range") or (0.0, math.pi / 2)
    return max(0.002, flow.sigma_from_time(low)), min(80.0, flow.sigma_from_time(high))


def choose_times(
    times: Sequence[float] | None, steps: int | None, default: int, make: Callable[[int], Sequence[float]]
) -> tuple[float, ...]:
    """Returns the given times, else those of a number of steps; ValueError for both."""
    if times is None:
        return tuple(make(default if steps is None else steps))
    if steps is not None:
        raise ValueError(f"give steps or times, not both; got steps={steps} and {len(tuple(times))} times")
    return tuple(times)


def batch_time(time: float, x: Tensor) -> Tensor:
    """Returns one time for each sample of x, ``(B,)``, in float64 where x is, else in float32."""
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    return torch.full((x.shape[0],), time, dtype=dtype, device=x.device)


def _noise_function(
    model: Backbone, flow: TrigFlow, noise: Tensor | None, shape: Sequence[int] | None, seed: Seed | None
) -> Noise:
    """Returns a function that starts from the given noise, where there is one, and draws all other noise."""
    if (noise is None) == (shape is None):
        raise ValueError("give either noise (B, c, *s) or the shape of the latents, shape=(B, c, *s)")
    parameter = _first_parameter(model)
    if noise is not None:
        _warn_of_scale(noise, flow)
        noise = noise if parameter is None else noise.to(parameter.device)
        shape, device, dtype = noise.shape, noise.device, noise.dtype
    else:
        assert shape is not None
        device = torch.device("cpu") if parameter is None else parameter.device
        wide = parameter is not None and parameter.dtype == torch.float64
        dtype = torch.float64 if wide else torch.float32
    generator = torch.Generator().manual_seed(seed) if isinstance(seed, int) else seed

    def draw(step: int) -> Tensor:
        if step == 0 and noise is not None:
            return noise
        return flow.prior(shape, generator, device, dtype)

    return draw


def _warn_of_scale(noise: Tensor, flow: TrigFlow) -> None:
    std = noise.float().std().item() if noise.numel() >= 1000 else flow.sigma_data
    if not 0.7 < std / flow.sigma_data < 1.4:
        warnings.warn(
            f"the noise has a standard deviation of {std:.2f}, and sigma_data is {flow.sigma_data:g}: sampling starts "
            "from noise of standard deviation sigma_data, as TrigFlow.prior(shape) returns",
            stacklevel=7,
        )


def _first_parameter(model: object) -> Tensor | None:
    parameters = model.parameters() if isinstance(model, nn.Module) else ()
    return next((each for each in parameters if each.is_floating_point()), None)


def _narrow_dtype(model: Backbone) -> torch.dtype | None:
    """Returns the 16-bit type that a model must be called in; latents stay in float32 between its evaluations."""
    parameter = _first_parameter(model)
    if parameter is None or wrapped_attribute(model, "takes_any_dtype"):
        return None
    return parameter.dtype if parameter.dtype in (torch.float16, torch.bfloat16) else None

"""Samplers: free functions from a model to samples x0, and the times that they step through.

``sample_consistency`` is for students; teachers are sampled by a solver of dx/dt = sigma_data · F. A new solver is one
function with the decorator ``@sampler(name, evaluations)``, here or in a package of your own.

Every sampler takes these arguments, of which only the model has no default:

- model: a backbone F(u, t, cond). A module is put into evaluation mode while it samples.
- flow: ``TrigFlow.of(model)`` where None.
- noise or shape: ``noise`` is a function ``noise(i)`` that returns noise ``(B, c, *s)`` of standard deviation
  sigma_data (``noise(0)`` starts the trajectory at the first time, later ones renoise), or a tensor of such noise to
  start from. ``shape`` is the shape ``(B, c, *s)`` of noise that is drawn, on the device of the model's parameters.
- steps or times: a number of steps, or the times in radians, from noise to data.
- seed: an integer or a ``torch.Generator`` that noise is drawn with; the global random state where None.
- cond: a ``Conditioning``, a mapping of labels, one label ``(B,)`` or None (``as_conditioning``).
- callback: ``callback(i, time, x0)`` is called in step i with its time in radians and the denoised x0.

The latents keep the dtype of the noise: float64 for a model in float64, else float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial, update_wrapper
from itertools import pairwise

import torch
from torch import Tensor, nn

from scm_media.conditioning import Conditioning
from scm_media.interfaces import Backbone
from scm_media.nn.embedding import PlainConditioning
from scm_media.registry import Registry
from scm_media.sampler_inputs import Evaluator, Noise, Seed, batch_time, choose_times, evaluator, sigma_range
from scm_media.trigflow import TrigFlow

Constraint = Callable[[Tensor, int], Tensor]
Callback = Callable[[int, float, Tensor], object]


class CallCounter(nn.Module):
    """A backbone that counts its calls: ``evaluations`` is the number of network calls for one sample."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone
        self.evaluations = 0

    def forward(self, u: Tensor, t: Tensor, cond: Conditioning) -> Tensor:
        """Returns the backbone's F(u, t) ``(B, c, *s)`` and counts the call."""
        self.evaluations += 1
        return self.backbone(u, t, cond)


def check_times(times: Sequence[float]) -> None:
    """Raises ValueError unless the times, in radians, descend strictly within (0, π/2]."""
    if not times:
        raise ValueError("times is empty: give at least one time in (0, π/2], the first near π/2")
    for time in times:
        if not 0 < time <= math.pi / 2:
            raise ValueError(f"times must lie in (0, π/2 = {math.pi / 2:.4f}] radians, got {time}")
    for earlier, later in pairwise(times):
        if not later < earlier:
            raise ValueError(f"times must descend, got {earlier} followed by {later}: order them from noise to data")


def consistency_times(
    num_steps: int, flow: TrigFlow, sigma_max: float = 80.0, second: float = 1.1
) -> tuple[float, ...]:
    """Returns times in radians for consistency steps: t_max = atan(sigma_max / sigma_data), then even from ``second``.

    One step: (t_max,); two: (t_max, 1.1); three: (t_max, 1.1, 0.55). Raises ValueError for less than one step, and for
    a ``second`` that is not below t_max.
    """
    _check_num_steps(num_steps)
    later = [second * (1 - k / (num_steps - 1)) for k in range(num_steps - 1)]
    times = (flow.time_from_sigma(sigma_max), *later)
    check_times(times)
    return times


def edit_times(num_steps: int, flow: TrigFlow, sigma_max: float = 80.0) -> tuple[float, ...]:
    """Returns times in radians for steps under a constraint: t_max (1 − k/N) for k = 0 … N − 1, even in t.

    The given part of a sample influences the rest only when it is renoised, so every noise level needs steps: the first
    step has seen nothing of it, and steps at small t are Langevin steps of the conditional distribution. For Gaussian
    data, whose conditional has a closed form, steps even in t come nearer to it than as many that are even in
    sigma^(1/7) or log sigma. Raises ValueError for less than one step.
    """
    _check_num_steps(num_steps)
    return tuple(flow.time_from_sigma(sigma_max) * (1 - k / num_steps) for k in range(num_steps))


def teacher_times(
    num_steps: int, flow: TrigFlow, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0
) -> tuple[float, ...]:
    """Returns ``num_steps + 1`` times in radians, even in sigma^(1/rho) from sigma_max to sigma_min, then 0.

    Raises ValueError for less than one step or sigmas out of order. Source: Karras et al. 2022, equation 5 (arXiv
    2206.00364).
    """
    _check_num_steps(num_steps)
    if not 0 < sigma_min < sigma_max:
        raise ValueError(f"expected 0 < sigma_min < sigma_max, got sigma_min={sigma_min}, sigma_max={sigma_max}")
    high, low = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    sigmas = [(high + k / max(num_steps - 1, 1) * (low - high)) ** rho for k in range(num_steps)]
    return (*(flow.time_from_sigma(sigma) for sigma in sigmas), 0.0)


def rectified_flow_times(num_steps: int, flow: TrigFlow, shift: float = 1.0) -> tuple[float, ...]:
    """Returns ``num_steps + 1`` times in radians, even in s from 1 to 0 and then shifted, for x_s = (1 − s) x0 + s n.

    A shift turns s into shift · s / (1 + (shift − 1) s), as Stable Diffusion 3 and FLUX do (arXiv 2403.03206, equation
    23); tan t = s / ((1 − s) sigma_data). Raises ValueError for less than one step or a shift that is not positive.
    """
    _check_num_steps(num_steps)
    if not shift > 0:
        raise ValueError(f"shift must be positive, got {shift}: 1 is none, 3 is usual")
    levels = [1 - k / num_steps for k in range(num_steps + 1)]
    return tuple(math.atan2(shift * s, (1 - s) * flow.sigma_data) for s in levels)


@torch.no_grad()
def sample_consistency(
    model: Backbone,
    flow: TrigFlow | None = None,
    noise: Noise | Tensor | None = None,
    times: Sequence[float] | None = None,
    cond: PlainConditioning = None,
    *,
    shape: Sequence[int] | None = None,
    steps: int | None = None,
    seed: Seed | None = None,
    start: Tensor | None = None,
    constrain: Constraint | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """Returns x0 ``(B, c, *s)`` by consistency steps: denoise to 0, renoise with fresh noise to the next time.

    The module's docstring says what the arguments are; two steps at ``consistency_times`` are the default.
    start: an x0 ``(B, c, *s)`` that is noised to the first time instead of starting from noise alone (variations).
    constrain: ``constrain(x0, i)`` replaces the denoised x0 of step i before it is renoised or returned (editing).
    Raises ValueError for times that are empty, do not descend or leave (0, π/2], and for arguments that contradict.
    Source: Song et al. 2023 (arXiv 2303.01469), algorithms 1 and 4, on the path of sCM (arXiv 2410.11081).
    """
    if start is not None and noise is None and shape is None:
        shape = start.shape
    with evaluator(model, flow, noise, cond, shape, seed) as run:
        make = partial(consistency_times, flow=run.flow, sigma_max=sigma_range(model, run.flow)[1])
        times = choose_times(times, steps, 2, make)
        check_times(times)
        x0 = start
        for i, time in enumerate(times):
            z = run.noise(i)
            t = batch_time(time, z)
            x_t = z if x0 is None else run.flow.interpolate(x0, z, t)
            x0 = run.flow.denoise(x_t, run.field(x_t, time), t)
            x0 = x0 if constrain is None else constrain(x0, i)
            if callback is not None:
                callback(i, time, x0)
    assert x0 is not None
    return x0


Solver = Callable[[Evaluator, Sequence[float], Callback], Tensor]
"""``(run, times, callback) -> x`` at the last of the times, ``(B, c, *s)``."""


class Sampler:
    """A solver of dx/dt = sigma_data · F with the arguments and defaults of all samplers of teachers.

    evaluations: the number of network calls for one sample as a function of the number of steps.
    """

    def __init__(self, solve: Solver, evaluations: Callable[[int], int]) -> None:
        update_wrapper(self, solve)
        del self.__wrapped__  # type: ignore[attr-defined]  # its signature is not that of the sampler
        self.solve, self.evaluations = solve, evaluations

    @torch.no_grad()
    def __call__(
        self,
        model: Backbone,
        flow: TrigFlow | None = None,
        noise: Noise | Tensor | None = None,
        times: Sequence[float] | None = None,
        cond: PlainConditioning = None,
        *,
        shape: Sequence[int] | None = None,
        steps: int | None = None,
        seed: Seed | None = None,
        callback: Callback | None = None,
    ) -> Tensor:
        """Returns x at the last of the times, ``(B, c, *s)``; the module's docstring says what the arguments are."""
        with evaluator(model, flow, noise, cond, shape, seed) as run:
            low, high = sigma_range(model, run.flow)
            make = partial(teacher_times, flow=run.flow, sigma_min=low, sigma_max=high)
            times = choose_times(times, steps, 32, make)
            check_times(times[:-1] if len(times) > 1 and times[-1] == 0 else times)
            return self.solve(run, times, callback or _ignore)


SAMPLERS: Registry[Sampler] = Registry("sampler")


def sampler(name: str, evaluations: Callable[[int], int]) -> Callable[[Solver], Sampler]:
    """Returns a decorator that makes a ``Solver`` a sampler, which recipes choose by ``sampler.teacher=name``.

    evaluations: the number of network calls for one sample as a function of the number of steps, where the last step
    goes to t = 0. Raises ValueError for a name that is taken.
    """

    def register(solve: Solver) -> Sampler:
        made = Sampler(solve, evaluations)
        SAMPLERS.add(name, made)
        return made

    return register


@sampler("heun", evaluations=lambda steps: 2 * steps - 1)
def sample_heun(run: Evaluator, times: Sequence[float], callback: Callback) -> Tensor:
    """Returns x at the last of ``times`` ``(B, c, *s)`` along dx/dt = sigma_data · F, by Heun's method of second order.

    The module's docstring says what the arguments are; 32 steps at ``teacher_times`` are the default. A step takes two
    evaluations. The predictor rotates (x0, z), x' = cos Δ · x + sin Δ · sigma_data · F with Δ = t' − t, which is exact
    where the denoised x0 and the noise are constant. The corrector takes their derivative as constant over the step,
    which gives x' = x + tan(Δ/2) · sigma_data · (F + F'): Heun's rule (Karras et al. 2022, algorithm 1) in the rotating
    frame. A step to t' = 0 is the predictor alone, one denoising. Raises ValueError for times out of order.
    """
    x, sigma = run.noise(0), run.flow.sigma_data
    for i, (time, following) in enumerate(pairwise(times)):
        delta = following - time
        F = run.field(x, time)
        callback(i, time, math.cos(time) * x - math.sin(time) * sigma * F)
        predicted = math.cos(delta) * x + math.sin(delta) * sigma * F
        if following == 0:
            return predicted
        F_next = run.field(predicted, following)
        x = x + math.tan(delta / 2) * sigma * (F + F_next)
    return x


@sampler("dpm_solver", evaluations=lambda steps: steps)
def sample_dpm_solver(run: Evaluator, times: Sequence[float], callback: Callback) -> Tensor:
    """Returns x at the last of ``times`` ``(B, c, *s)`` by DPM-Solver++(2M): one evaluation a step, second order.

    The module's docstring says what the arguments are; 32 steps at ``teacher_times`` are the default.
    x' = (sin t' / sin t) x + (sin(t − t') / sin t) D, where D extrapolates the denoised x0 of this step and the one
    before linearly in log-SNR λ = −log tan t. The first step and one to t' = 0 are of first order.
    Raises ValueError for times out of order. Source: Lu et al. 2022 (arXiv 2211.01095), algorithm 2.
    """
    x = run.noise(0)
    previous, previous_step = torch.zeros_like(x), math.inf
    for i, (time, following) in enumerate(pairwise(times)):
        x0 = math.cos(time) * x - math.sin(time) * run.flow.sigma_data * run.field(x, time)
        callback(i, time, x0)
        if following == 0:
            return x0
        step = math.log(math.tan(time)) - math.log(math.tan(following))
        D = x0 + step / (2 * previous_step) * (x0 - previous)
        x = (math.sin(following) * x + math.sin(time - following) * D) / math.sin(time)
        previous, previous_step = x0, step
    return x


def _ignore(i: int, time: float, x0: Tensor) -> None:
    """Does nothing: the callback where none is given."""


def _check_num_steps(num_steps: int) -> None:
    if num_steps < 1:
        raise ValueError(f"steps must be at least 1, got {num_steps}")

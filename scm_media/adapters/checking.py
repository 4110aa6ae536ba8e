"""Checks a converted network: samples against its own scheduler's, and the tangent against finite differences."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from scm_media.adapters.adapter import ADAPTERS
from scm_media.adapters.schedulers import EDMS, FLOWS
from scm_media.change_of_variables import ChangeOfVariables
from scm_media.conditioning import Conditioning
from scm_media.tangent import value_and_tangent

NEAR_ENDS = (0.02, 0.1, 0.4, 0.8, 1.2, 1.47, 1.55)
"""Times in radians at which the size of dF/dt is measured."""
MIDDLE = 0.8
EXPLODES = 30.0
"""The growth of dF/dt, over that in the middle, from which a student is not expected to learn."""
SAME = 1e-4
TANGENT = 3e-2
"""The largest errors of samples and of dF/dt. Networks compute their time embedding in float32, which limits both."""
STEP = 1e-3
"""The step of finite differences in radians, as large as the rounding of a time of 1,000 in float32 asks."""


@dataclass(frozen=True)
class ConversionCheck:
    """Holds what was measured of a converted network.

    mean_error, max_error: of the samples of its own scheduler and of ours at equal times, relative to their root mean
    square. tangent_error: of dF/dt in one pass, relative to central differences in float64. slopes: the root mean
    square of dF/dt by time in radians.
    """

    steps: int
    mean_error: float
    max_error: float
    tangent_error: float
    slopes: Mapping[float, float]

    @property
    def is_right(self) -> bool:
        """Returns whether samples and dF/dt agree with those of the network's own."""
        return self.max_error < SAME and self.tangent_error < TANGENT

    def verdict(self) -> list[str]:
        """Returns what is wrong, with remedies, one sentence each; empty where nothing is."""
        found = []
        if not self.max_error < SAME:
            found.append(
                f"samples differ from those of its own scheduler by {self.max_error:.1e}: the scheduler's "
                "noise levels or the network's time are read wrongly; tell us which scheduler and network they are"
            )
        if not self.tangent_error < TANGENT:
            found.append(
                f"dF/dt differs from finite differences by {self.tangent_error:.1e}: set tangent_method to "
                "'finite_difference', and tell us which module it is"
            )
        middle = self.slopes[MIDDLE]
        ends = ((time, slope / middle) for time, slope in self.slopes.items())
        if far := [f"{ratio:.0f} times at t = {time:g}" for time, ratio in ends if not ratio < EXPLODES]:
            found.append(
                f"dF/dt grows towards an end ({', '.join(far)} what it is at t = {MIDDLE:g}): train on times away from "
                "it (student.loss.timesteps), or take the network as a teacher of trajectories alone (warm_start, "
                "distribution matching)"
            )
        return found


def check_conversion(
    teacher: ChangeOfVariables,
    scheduler: Mapping[str, Any],
    latent_shape: Sequence[int],
    cond: Conditioning | None = None,
    steps: int = 8,
    seed: int = 0,
) -> ConversionCheck:
    """Returns the check of a converted network on two latents ``(c, *s)``, in float64.

    scheduler: the configuration that the network was converted with. cond: conditioning for two samples.
    """
    cond = _wide(cond or Conditioning())
    net = copy.deepcopy(teacher).double().eval()
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(2, *latent_shape, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        theirs, ours = _sample(net, scheduler, noise, cond, steps)
    difference = (theirs - ours).abs() / theirs.square().mean().sqrt()
    u, du = noise, torch.randn(noise.shape, generator=generator, dtype=torch.float64)
    t, dt = torch.full((2,), 0.8, dtype=torch.float64), torch.ones(2, dtype=torch.float64)
    found = value_and_tangent(net, u, t, cond, du, dt).tangent
    wide, narrow = (
        value_and_tangent(net, u, t, cond, du, dt, "finite_difference", step).tangent for step in (STEP, STEP / 2)
    )
    expected = (4 * narrow - wide) / 3  # Richardson's extrapolation
    slopes = {}
    for time in NEAR_ENDS:
        at = torch.full((2,), time, dtype=torch.float64)
        dual = value_and_tangent(net, u, at, cond, torch.zeros_like(u), dt)
        slopes[time] = dual.tangent.square().mean().sqrt().item()
    error = ((found - expected).norm() / expected.norm()).item()
    return ConversionCheck(steps, difference.mean().item(), difference.max().item(), error, slopes)


def _wide(cond: Conditioning) -> Conditioning:
    return cond._map(lambda each: each.double() if each.is_floating_point() else each)


def _sample(
    net: ChangeOfVariables, config: Mapping[str, Any], noise: Tensor, cond: Conditioning, steps: int
) -> tuple[Tensor, Tensor]:
    """Returns the samples of the network's own scheduler and ours, from the same noise at the same times."""
    kind, prediction = config["_class_name"], config.get("prediction_type", "epsilon")
    if kind in FLOWS or prediction == "flow_prediction":
        return _sample_flow(net, config, noise, cond, steps)
    if kind in EDMS or kind == "CosineDPMSolverMultistepScheduler":
        return _sample_edm(net, config, noise, cond, steps)
    return _sample_vp(net, config, noise, cond, steps)


def _call(net: ChangeOfVariables, y: Tensor, time: Any, cond: Conditioning) -> Tensor:
    times = torch.as_tensor(time, dtype=torch.float64).expand(len(y))
    prediction: Tensor = ADAPTERS[type(net.network).__name__].called(net.network, y, times, cond)
    return prediction


def _rotate(net: ChangeOfVariables, x: Tensor, t: float, s: float, cond: Conditioning) -> Tensor:
    """Returns cos(t − s) x_t − sin(t − s) sigma_data F, a step of the first order from time t to s."""
    times = torch.full((len(x),), t, dtype=torch.float64)
    F = net(x / net.sigma_data, times, cond)
    return math.cos(t - s) * x - math.sin(t - s) * net.sigma_data * F


def _ours(net: ChangeOfVariables, noise: Tensor, levels: Sequence[tuple[float, float]], cond: Conditioning) -> Tensor:
    """Returns latents from pure noise by steps at noise levels (alpha, sigma) of the network's own path."""
    angles = [math.atan2(sigma, alpha * net.sigma_data) for alpha, sigma in levels]
    alpha, sigma = levels[0]
    x = noise * net.sigma_data * math.sin(angles[0])
    if alpha > 0:  # their first sample is sigma · noise at this level
        x = noise * sigma * math.cos(angles[0]) / alpha
    for t, s in pairwise(angles):
        x = _rotate(net, x, t, s, cond)
    alpha, _ = levels[-1]
    return x * alpha / math.cos(angles[-1])


def _sample_flow(net: Any, config: Any, noise: Tensor, cond: Conditioning, steps: int) -> tuple[Tensor, Tensor]:
    from diffusers import FlowMatchEulerDiscreteScheduler

    keys = ("num_train_timesteps", "shift", "use_dynamic_shifting", "base_shift", "max_shift")
    scheduler = FlowMatchEulerDiscreteScheduler(**{key: config[key] for key in keys if key in config})
    scheduler.set_timesteps(steps, **({"mu": 0.8} if scheduler.config.use_dynamic_shifting else {}))
    sigmas = [float(each) for each in scheduler.sigmas]
    y = noise.clone()
    for time, sigma in zip(scheduler.timesteps, sigmas, strict=False):
        prediction = _call(net, y, sigma * net.time_scale, cond)
        y = scheduler.step(prediction, time, y, return_dict=False)[0].double()
    return y, _ours(net, noise, [(1 - sigma, sigma) for sigma in sigmas], cond)


def _sample_vp(net: Any, config: Any, noise: Tensor, cond: Conditioning, steps: int) -> tuple[Tensor, Tensor]:
    import diffusers

    name = "CogVideoXDDIMScheduler" if config["_class_name"].startswith("CogVideoX") else "DDIMScheduler"
    options = {"clip_sample": False, "thresholding": False, "timestep_spacing": "leading", "steps_offset": 1}
    options = {**config, **options, "set_alpha_to_one": False}
    if name.startswith("CogVideoX"):
        options.pop("thresholding")
    scheduler = getattr(diffusers, name).from_config(options)
    scheduler.set_timesteps(steps)
    products = scheduler.alphas_cumprod.double()
    stride = scheduler.config.num_train_timesteps // steps
    y, levels = None, []
    for time in scheduler.timesteps:
        levels.append((products[time].sqrt().item(), (1 - products[time]).sqrt().item()))
        if y is None:
            y = noise * levels[0][1]
        prediction = _call(net, y, float(time), cond)
        y = scheduler.step(prediction, time, y, return_dict=False)[0].double()
        after = int(time) - stride
        last = products[after] if after >= 0 else scheduler.final_alpha_cumprod.double()
    levels.append((last.sqrt().item(), (1 - last).sqrt().item()))
    assert y is not None
    return y, _ours(net, noise, levels, cond)


def _sample_edm(net: Any, config: Any, noise: Tensor, cond: Conditioning, steps: int) -> tuple[Tensor, Tensor]:
    """Uses Euler's steps in sigma with the preconditioning of ``EDMEulerScheduler``, which both kinds share.

    The cosine schedule of Stable Audio has another time, atan(σ) · 2/π; its own class is stochastic.
    """
    from diffusers import EDMEulerScheduler

    names = ("sigma_min", "sigma_max", "sigma_data", "prediction_type")
    scheduler = EDMEulerScheduler(**{name: config[name] for name in names if name in config})
    cosine = config["_class_name"] not in EDMS
    low, high = scheduler.config.sigma_min, scheduler.config.sigma_max
    sigmas = [*torch.logspace(math.log10(high), math.log10(low), steps, dtype=torch.float64).tolist(), 0.0]
    y = noise * sigmas[0]
    for sigma, after in pairwise(sigmas):
        level = torch.tensor(sigma, dtype=torch.float64)
        time = torch.atan(level) * 2 / math.pi if cosine else scheduler.precondition_noise(level)
        prediction = _call(net, scheduler.precondition_inputs(y, level), time, cond)
        x0 = scheduler.precondition_outputs(y, prediction, level)
        y = x0 + (y - x0) * (after / sigma)
    return y, _ours(net, noise, [(1.0, sigma) for sigma in sigmas], cond)

"""The schedulers of diffusers that sample a distilled network in a few steps, and the times that they sample at.

They denoise to the end and noise the result to the next level, as ``sample_consistency`` does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from scm_media.adapters.adapter import ADAPTERS
from scm_media.change_of_variables import ChangeOfVariables
from scm_media.teachers import EpsPrediction, RectifiedFlow, VPrediction, X0Prediction

NUM_TIMESTEPS = 1000
NO_SKIP = 1e6
"""A ``timestep_scaling`` at which LCMScheduler's share of the noisy sample is below the rounding of float32."""
PREDICTIONS = {EpsPrediction: "epsilon", VPrediction: "v_prediction", X0Prediction: "sample"}
COSINE = "CosineDPMSolverMultistepScheduler"


def few_step_scheduler(
    backbone: ChangeOfVariables, scheduler: Mapping[str, Any], first_sigma: float | None = None
) -> Any:
    """Returns a scheduler of diffusers that samples a student of this backbone in a few steps.

    scheduler: the configuration that the backbone was converted with. ``FlowMatchLCMScheduler`` serves rectified flows;
    without arguments, the second of its two steps begins at equal parts of data and noise. ``LCMScheduler`` serves
    networks of discrete timesteps; with ``first_sigma`` it has none above this noise level, so that every pipeline
    starts there. Stable Audio's own scheduler, at the first order, noises samples again from two
    steps on, the second at σ = 1. EDM's own scheduler serves one step.
    """
    import diffusers

    kind, name = type(backbone), str(scheduler["_class_name"])
    if first_sigma is not None and (kind not in PREDICTIONS or name == COSINE):
        raise ValueError(
            f"the student starts from the noise level {first_sigma:g} (sampler.first_sigma), and the schedulers of "
            "diffusers for its network start from more: sample it with scm-media, or train with "
            "sampler.first_sigma=null"
        )
    if kind is RectifiedFlow:
        # The scheduler shifts its levels when it is made, and those of a sampling once more: odds grow by shift².
        shift = 1.0 if _gives_levels(backbone) else math.sqrt(NUM_TIMESTEPS - 1)
        return diffusers.FlowMatchLCMScheduler(NUM_TIMESTEPS, shift=shift)
    own = getattr(diffusers, name)
    if name == COSINE:
        return own.from_config({**scheduler, "sigma_min": 1.0, "solver_order": 1})
    made = own.from_config(dict(scheduler))
    if not hasattr(made, "alphas_cumprod"):
        return made
    products = made.alphas_cumprod.double()
    limit: dict[str, int] = {}
    if first_sigma is not None:
        sigmas = torch.sqrt(1 / products - 1)  # TrigFlow's noise level is σ / α
        products = products[: max(2, int((sigmas <= first_sigma).sum()))]
        limit["original_inference_steps"] = len(products)  # a coarser grid could leave the last timesteps out
    kept = products / torch.cat([torch.ones(1, dtype=torch.float64), products[:-1]])
    return diffusers.LCMScheduler(
        num_train_timesteps=len(products),
        trained_betas=(1 - kept).tolist(),
        prediction_type=PREDICTIONS[kind],  # type: ignore[index]
        timestep_scaling=NO_SKIP,
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=int(scheduler.get("steps_offset", 0)),  # without a meaning here, but Stable Diffusion asks for 1
        **limit,
    )


def few_step_times(backbone: ChangeOfVariables, scheduler: Any, steps: int) -> tuple[float, ...]:
    """Returns the times in radians at which a scheduler of ``few_step_scheduler`` evaluates the network.

    Raises ValueError for numbers of steps in which the scheduler does not sample as consistency models do.
    """
    name = type(scheduler).__name__
    alike = hasattr(scheduler, "alphas_cumprod") or isinstance(backbone, RectifiedFlow)
    if not alike and (steps == 1) == (name == COSINE):
        fitting = "two steps or more" if name == COSINE else "one step alone"
        raise ValueError(f"{name} samples this network in {fitting}, not in {steps}: use scm-media for that")
    set_steps(backbone, scheduler, steps)
    if hasattr(scheduler, "alphas_cumprod"):
        products = scheduler.alphas_cumprod.double()[scheduler.timesteps].tolist()
        levels = [(math.sqrt(kept), math.sqrt(1 - kept)) for kept in products]
    else:
        flow = isinstance(backbone, RectifiedFlow)
        levels = [(1 - noise if flow else 1.0, noise) for noise in scheduler.sigmas[:steps].tolist()]
    return tuple(math.atan2(noise, kept * backbone.sigma_data) for kept, noise in levels)


def set_steps(backbone: ChangeOfVariables, scheduler: Any, steps: int) -> None:
    """Sets a number of steps as the pipeline of this network does."""
    if isinstance(backbone, RectifiedFlow) and _gives_levels(backbone):
        scheduler.set_timesteps(sigmas=[1 - step / steps for step in range(steps)])
    else:
        scheduler.set_timesteps(steps)


def _gives_levels(backbone: ChangeOfVariables) -> bool:
    adapter = ADAPTERS.get(type(backbone.network).__name__)
    return adapter is not None and adapter.gives_levels

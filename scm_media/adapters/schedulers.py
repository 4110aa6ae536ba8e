"""The schedulers of diffusers as changes of variables: what the network predicts, and at which noise levels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from scm_media.adapters.adapter import ADAPTERS
from scm_media.change_of_variables import ChangeOfVariables
from scm_media.conditioning import Conditioning
from scm_media.schedules import CosineSchedule
from scm_media.teachers import EDM, EpsPrediction, RectifiedFlow, VPrediction, X0Prediction

FLOWS = frozenset({"FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler", "FlowMatchLCMScheduler"})
EDMS = frozenset({"EDMEulerScheduler", "EDMDPMSolverMultistepScheduler"})
MOST_TIMESTEPS = 100_000
PREDICTIONS: Mapping[str, type[EpsPrediction] | type[VPrediction] | type[X0Prediction]] = {
    "epsilon": EpsPrediction,
    "v_prediction": VPrediction,
    "sample": X0Prediction,
}


def change_of_variables(network: nn.Module, scheduler: Mapping[str, Any]) -> ChangeOfVariables:
    """Returns a network of diffusers as a TrigFlow backbone, for the configuration of its scheduler.

    Its latents are those that the network was trained on, times nothing else. Raises ValueError for a class of network
    without an adapter, for a scheduler that is not known, and for a prediction that it does not have.
    """
    name, kind = type(network).__name__, str(scheduler.get("_class_name"))
    if name not in ADAPTERS:
        raise ValueError(f"{name} is no network that can be converted: there are {', '.join(sorted(ADAPTERS))}")
    adapter = ADAPTERS[name]
    prediction = scheduler.get("prediction_type", "epsilon")
    if kind in FLOWS or prediction == "flow_prediction":
        return RectifiedFlow(network, time_scale=adapter.time_scale, call=adapter.called)
    if kind in EDMS:
        return _edm(network, scheduler, prediction)
    if kind == "CosineDPMSolverMultistepScheduler":
        if prediction != "v_prediction":
            raise ValueError(_no_such(kind, prediction, ["v_prediction"]))
        return VPrediction(network, CosineSchedule(), call=adapter.called)
    if prediction not in PREDICTIONS:
        raise ValueError(_no_such(kind, prediction, sorted(PREDICTIONS)))
    return PREDICTIONS[prediction](network, _alphas_cumprod(kind, scheduler), call=adapter.called)


def predicts_noise(scheduler: Mapping[str, Any]) -> bool:
    """Returns whether a scheduler's network predicts noise on a variance-preserving path."""
    others = {*FLOWS, *EDMS, "CosineDPMSolverMultistepScheduler"}
    return scheduler.get("_class_name") not in others and scheduler.get("prediction_type", "epsilon") == "epsilon"


def _edm(network: nn.Module, scheduler: Mapping[str, Any], prediction: str) -> ChangeOfVariables:
    """Returns EDM's raw network, whose sign is the other one for v-prediction."""
    adapter, sign = ADAPTERS[type(network).__name__], {"epsilon": 1, "v_prediction": -1}.get(prediction)
    if sign is None:
        raise ValueError(_no_such(str(scheduler["_class_name"]), prediction, ["epsilon", "v_prediction"]))

    def call(inner: Any, y: Any, time: Any, cond: Conditioning) -> Any:
        return sign * adapter.called(inner, y, time, cond)

    return EDM(network, sigma_data=scheduler.get("sigma_data", 0.5), call=call)


def _alphas_cumprod(kind: str, scheduler: Mapping[str, Any]) -> Any:
    import diffusers

    found: Any = getattr(diffusers, kind, None)
    products = None
    if isinstance(found, type) and issubclass(found, diffusers.SchedulerMixin):
        if not 1 <= scheduler.get("num_train_timesteps", 1000) <= MOST_TIMESTEPS:
            raise ValueError(f"{kind}: num_train_timesteps must lie in 1 … {MOST_TIMESTEPS}")
        made: Any = found
        products = getattr(made.from_config(dict(scheduler)), "alphas_cumprod", None)
    if products is None:
        known = sorted({*FLOWS, *EDMS, "CosineDPMSolverMultistepScheduler"})
        raise ValueError(
            f"the noise levels of the scheduler {kind} are not known: one of diffusers with alphas_cumprod is expected "
            f"(DDPM, DDIM, Euler, DPM++ …), or one of {', '.join(known)}"
        )
    return products


def _no_such(kind: str, prediction: str, known: list[str]) -> str:
    return f"{kind} has the prediction_type {prediction!r}; expected one of {', '.join(known)}"

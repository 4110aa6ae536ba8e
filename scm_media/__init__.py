"""Continuous-time consistency models for images, audio and video; names are imported when first used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scm_media import teachers
    from scm_media.anchored_consistency import AnchoredConsistencyLoss
    from scm_media.conditioning import NO_LABEL, Conditioning
    from scm_media.data import Dataset, Example
    from scm_media.discrete_consistency import DiscreteConsistencyLoss
    from scm_media.distribution_matching import DistributionMatchingLoss
    from scm_media.ema import PowerEMA, reconstruct
    from scm_media.flow_map import FlowMapLoss
    from scm_media.flow_map_sampler import sample_flow_map
    from scm_media.guidance import Guided
    from scm_media.losses import ConsistencyLoss, DiffusionLoss, RegressionLoss
    from scm_media.masks import mask_type
    from scm_media.mean_flow import MeanFlowLoss
    from scm_media.modality import Modality, Segment, SizeOption
    from scm_media.nn.magnitude import renormalize
    from scm_media.parts import part
    from scm_media.pipeline import Pipeline, Samples, load
    from scm_media.samplers import (
        consistency_times,
        edit_times,
        rectified_flow_times,
        sample_consistency,
        sample_dpm_solver,
        sample_heun,
        sampler,
        teacher_times,
    )
    from scm_media.tangent import value_and_tangent
    from scm_media.timesteps import LogNormalTimesteps, UniformTimesteps
    from scm_media.trajectories import Trajectory
    from scm_media.trigflow import TrigFlow

__version__ = "0.1.0"

_MODULES = {
    "AnchoredConsistencyLoss": "anchored_consistency",
    "NO_LABEL": "conditioning",
    "Samples": "pipeline",
    "Conditioning": "conditioning",
    "ConsistencyLoss": "losses",
    "Dataset": "data",
    "DiffusionLoss": "losses",
    "DiscreteConsistencyLoss": "discrete_consistency",
    "DistributionMatchingLoss": "distribution_matching",
    "Example": "data",
    "FlowMapLoss": "flow_map",
    "Guided": "guidance",
    "LogNormalTimesteps": "timesteps",
    "MeanFlowLoss": "mean_flow",
    "Modality": "modality",
    "Pipeline": "pipeline",
    "PowerEMA": "ema",
    "RegressionLoss": "losses",
    "Segment": "modality",
    "SizeOption": "modality",
    "Trajectory": "trajectories",
    "TrigFlow": "trigflow",
    "UniformTimesteps": "timesteps",
    "consistency_times": "samplers",
    "edit_times": "samplers",
    "load": "pipeline",
    "mask_type": "masks",
    "part": "parts",
    "reconstruct": "ema",
    "rectified_flow_times": "samplers",
    "renormalize": "nn.magnitude",
    "sample_consistency": "samplers",
    "sample_dpm_solver": "samplers",
    "sample_flow_map": "flow_map_sampler",
    "sample_heun": "samplers",
    "sampler": "samplers",
    "teacher_times": "samplers",
    "value_and_tangent": "tangent",
}

__all__ = [
    "NO_LABEL",
    "AnchoredConsistencyLoss",
    "Conditioning",
    "ConsistencyLoss",
    "Dataset",
    "DiffusionLoss",
    "DiscreteConsistencyLoss",
    "DistributionMatchingLoss",
    "Example",
    "FlowMapLoss",
    "Guided",
    "LogNormalTimesteps",
    "MeanFlowLoss",
    "Modality",
    "Pipeline",
    "PowerEMA",
    "RegressionLoss",
    "Samples",
    "Segment",
    "SizeOption",
    "Trajectory",
    "TrigFlow",
    "UniformTimesteps",
    "consistency_times",
    "edit_times",
    "load",
    "mask_type",
    "part",
    "reconstruct",
    "rectified_flow_times",
    "renormalize",
    "sample_consistency",
    "sample_dpm_solver",
    "sample_flow_map",
    "sample_heun",
    "sampler",
    "teacher_times",
    "teachers",
    "value_and_tangent",
]


def __getattr__(name: str) -> Any:
    if name == "teachers":
        return importlib.import_module(f"{__name__}.teachers")
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

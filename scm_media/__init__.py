"""Continuous-time consistency models for images, audio and video; names are imported when first used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scm_media.interfaces import Conditioning
    from scm_media.losses import ConsistencyLoss, DiffusionLoss
    from scm_media.parts import part
    from scm_media.pipeline import Clips, Pipeline, load
    from scm_media.proposals import LogNormalProposal, UniformProposal
    from scm_media.samplers import sample_consistency, sample_dpm_solver, sample_heun
    from scm_media.tangent import value_and_tangent
    from scm_media.trigflow import TrigFlow

__version__ = "0.1.0"

_MODULES = {
    "Clips": "pipeline",
    "Conditioning": "interfaces",
    "ConsistencyLoss": "losses",
    "DiffusionLoss": "losses",
    "LogNormalProposal": "proposals",
    "Pipeline": "pipeline",
    "TrigFlow": "trigflow",
    "UniformProposal": "proposals",
    "load": "pipeline",
    "part": "parts",
    "sample_consistency": "samplers",
    "sample_dpm_solver": "samplers",
    "sample_heun": "samplers",
    "value_and_tangent": "tangent",
}

__all__ = [
    "Clips",
    "Conditioning",
    "ConsistencyLoss",
    "DiffusionLoss",
    "LogNormalProposal",
    "Pipeline",
    "TrigFlow",
    "UniformProposal",
    "load",
    "part",
    "sample_consistency",
    "sample_dpm_solver",
    "sample_heun",
    "value_and_tangent",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

"""A trained model: loaded, sampled, edited, exported."""

from __future__ import annotations

from scm_media.pipeline.batch_sampler import Samples
from scm_media.pipeline.description import ModelDescription, SamplerSettings
from scm_media.pipeline.hub import bundled_names, find_folder
from scm_media.pipeline.model_folder import ModelFolder
from scm_media.pipeline.pipeline import Pipeline, load
from scm_media.pipeline.requests import EditRequest, SamplingRequest

__all__ = [
    "EditRequest",
    "ModelDescription",
    "ModelFolder",
    "Pipeline",
    "SamplerSettings",
    "Samples",
    "SamplingRequest",
    "bundled_names",
    "find_folder",
    "load",
]

"""A trained model: load, generate, export."""

from __future__ import annotations

from scm_media.pipeline.folder import ModelFolder
from scm_media.pipeline.generation import Pipeline, Samples, load
from scm_media.pipeline.sources import bundled_names, find_folder

__all__ = ["ModelFolder", "Pipeline", "Samples", "bundled_names", "find_folder", "load"]

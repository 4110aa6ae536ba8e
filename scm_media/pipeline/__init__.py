"""A trained model: load, generate, export."""

from __future__ import annotations

from scm_media.pipeline.folder import ModelFolder
from scm_media.pipeline.generation import Clips, Pipeline, load
from scm_media.pipeline.sources import bundled_names, find_folder

__all__ = ["Clips", "ModelFolder", "Pipeline", "bundled_names", "find_folder", "load"]

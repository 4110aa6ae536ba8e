"""Models of ours as pipelines of diffusers: ``DiffusionPipeline.from_pretrained`` opens what ``export`` wrote.

diffusers looks a folder's classes up by name and imports nothing for it, so ``import scm_media.diffusers`` comes first.
"""

from __future__ import annotations

try:
    import diffusers
except ImportError as error:
    raise ImportError(
        f"scm_media.diffusers needs the package diffusers ({error}): pip install 'scm-media[diffusers]'"
    ) from error

from scm_media.diffusers.components import ScmMediaAutoencoder, ScmMediaBackbone
from scm_media.diffusers.pipeline import ScmMediaPipeline, VideoPipelineOutput

__all__ = ["ScmMediaAutoencoder", "ScmMediaBackbone", "ScmMediaPipeline", "VideoPipelineOutput"]

# DiffusionPipeline.from_pretrained takes the class that a folder names from this module.
diffusers.ScmMediaPipeline = ScmMediaPipeline

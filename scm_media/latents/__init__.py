"""The latents of a run's data on disk: written once, and read in place of the samples by the stages that train on them.

The folder of a split holds ``manifest.json`` and ``00000.safetensors`` …, each shard with the latents
``(N, variants, c, *s)`` of neighbouring examples, their padding masks ``(N, variants, 1, *s)``, actions ``(N, k, n)``
and labels ``(N,)``. A shard is complete or absent.
"""

from scm_media.latents.cache import LatentCache
from scm_media.latents.dataset import LatentDataset
from scm_media.latents.manifest import Manifest

__all__ = ["LatentCache", "LatentDataset", "Manifest"]

"""Which features distances are measured in: the model's own network, or one that the modality offers by name."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from scm_media.build import build
from scm_media.interfaces import FeatureExtractor, Modality
from scm_media.pipeline import Pipeline

OWN = "the model's own feature extractor"
PROJECTED_DIMENSION = 128
"""With fewer samples than a few times the dimension a covariance is mostly noise: wider features are projected."""


@dataclass(frozen=True)
class FeatureNetwork:
    """A network with a name, and what its features are projected by: ``(d, 128)``, None for as they are."""

    name: str
    network: FeatureExtractor
    projection: Tensor | None = None

    def features(self, sample: Tensor) -> Tensor:
        """Features ``(B, d)`` of samples ``(B, C, *S)``, float32."""
        features = self.network.features(sample).float()
        return features if self.projection is None else features @ self.projection

    def logits(self, sample: Tensor) -> Mapping[str, Tensor]:
        """The network's scores of the labels that it knows."""
        return self.network.logits(sample)

    def describe(self, dimension: int, num_samples: int) -> dict[str, Any]:
        """What stands beside a figure: name, dimension, the one before projection (None: not projected), samples."""
        before = None if self.projection is None else self.projection.shape[0]
        return {"name": self.name, "dimension": dimension, "projected_from": before, "num_samples": num_samples}


def own_network(pipeline: Pipeline) -> FeatureNetwork:
    """The network that a model carries; ValueError when it carries none."""
    return FeatureNetwork(OWN, pipeline.network("feature_extractor"))


def named_network(name: str, modality: Modality, device: torch.device | str = "cpu") -> FeatureNetwork:
    """A network that the modality offers, its features as they are (see ``projected``).

    Raises ValueError with the nearest names when the modality offers no such network, or it is not installed.
    """
    known: Mapping[str, Any] = getattr(modality, "feature_networks", {})
    if name not in known:
        near = difflib.get_close_matches(name, list(known), n=3, cutoff=0.3) or list(known)
        raise ValueError(
            f"there is no feature network {name!r} of the modality {modality.name} (nearest: "
            f"{', '.join(near) or 'it offers none'}); leave --features out for {OWN}"
        )
    network: Any = build(known[name], "feature_extractor")
    return FeatureNetwork(name, network.eval().requires_grad_(False).to(device))


@torch.inference_mode()
def projected(features: FeatureNetwork, shape: Sequence[int], device: torch.device | str = "cpu") -> FeatureNetwork:
    """The same network, its features of samples ``(C, *S)`` on 128 directions; itself where it has no more.

    Always, and not for few samples alone, so that figures compare whatever their number. The directions are
    orthonormal and drawn by a fixed seed, the same on every machine; a squared distance shrinks to 128 / d of itself
    on average over such draws (Johnson & Lindenstrauss 1984).
    """
    dimension = features.network.features(torch.zeros(1, *shape, device=device)).shape[1]
    if dimension <= PROJECTED_DIMENSION:
        return features
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(dimension, PROJECTED_DIMENSION, generator=generator, dtype=torch.float64)
    directions, triangle = torch.linalg.qr(drawn)
    # With these signs the decomposition is unique, whatever library computes it.
    directions = (directions * triangle.diagonal().sign()).float().to(device)
    return FeatureNetwork(features.name, features.network, directions)

"""Feature networks that distances are measured in: the model's own, or one that the modality offers by name."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from scm_media.build import build
from scm_media.interfaces import FeatureExtractor
from scm_media.modality import Modality
from scm_media.pipeline import Pipeline

OWN = "the model's own feature extractor"
PROJECTED_DIMENSION = 128
"""Wider features are projected: with few samples per dimension a covariance is mostly noise."""


@dataclass(frozen=True)
class FeatureNetwork:
    """A feature extractor with a name; projection ``(d, 128)``: its features are multiplied by it, None for not."""

    name: str
    network: FeatureExtractor
    projection: Tensor | None = None

    def features(self, sample: Tensor) -> Tensor:
        """Returns features ``(B, d)`` of samples ``(B, C, *S)``, in float32."""
        features = self.network.features(sample).float()
        return features if self.projection is None else features @ self.projection

    def logits(self, sample: Tensor) -> Mapping[str, Tensor]:
        """Returns the network's scores ``(B, classes)`` for each label that it classifies."""
        return self.network.logits(sample)

    def describe(self, dimension: int, num_samples: int) -> dict[str, Any]:
        """Returns the JSON object that stands beside figures; ``projected_from`` is None for features not projected."""
        before = None if self.projection is None else self.projection.shape[0]
        return {"name": self.name, "dimension": dimension, "projected_from": before, "num_samples": num_samples}


def own_network(pipeline: Pipeline) -> FeatureNetwork:
    """Returns the network that a model carries; raises ValueError where it carries none."""
    return FeatureNetwork(OWN, pipeline.network("feature_extractor"))


def named_network(name: str, modality: Modality, device: torch.device | str = "cpu") -> FeatureNetwork:
    """Returns a network that the modality offers, without a projection (see ``project_features``).

    Raises ValueError with the nearest names where the modality offers no such network, or it is not installed.
    """
    known: Mapping[str, Any] = modality.feature_networks
    if name not in known:
        near = difflib.get_close_matches(name, list(known), n=3, cutoff=0.3) or list(known)
        raise ValueError(
            f"there is no feature network {name!r} of the modality {modality.name} (nearest: "
            f"{', '.join(near) or 'it offers none'}); leave --features out for {OWN}"
        )
    network: Any = build(known[name], "feature_extractor")
    return FeatureNetwork(name, network.eval().requires_grad_(False).to(device))


@torch.inference_mode()
def project_features(
    features: FeatureNetwork, shape: Sequence[int], device: torch.device | str = "cpu"
) -> FeatureNetwork:
    """Returns the network with its features projected onto 128 directions, or itself where it has no more features.

    shape: of one sample, ``(C, *S)``. Features are projected whatever the number of samples, so that figures compare.
    The directions are orthonormal and follow from a fixed seed, the same on every machine. A squared distance shrinks
    to 128 / d of itself on average over such directions (Johnson & Lindenstrauss 1984).
    """
    dimension = features.network.features(torch.zeros(1, *shape, device=device)).shape[1]
    if dimension <= PROJECTED_DIMENSION:
        return features
    generator = torch.Generator().manual_seed(0)
    gaussian = torch.randn(dimension, PROJECTED_DIMENSION, generator=generator, dtype=torch.float64)
    directions, triangle = torch.linalg.qr(gaussian)
    # With these signs the decomposition is unique, whatever library computes it.
    directions = (directions * triangle.diagonal().sign()).float().to(device)
    return FeatureNetwork(features.name, features.network, directions)

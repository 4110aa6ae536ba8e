"""Builds the network in whose features distances are measured: the model's own, or one of the modality's."""

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

OWN_NETWORK = "the model's own feature extractor"
PROJECTED_DIMENSION = 128
"""Features with more dimensions are projected: with few samples per dimension a covariance is mostly noise."""


@dataclass(frozen=True)
class FeatureNetwork:
    """A named feature extractor; ``projection`` ``(d, 128)``, if given, multiplies its features."""

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
        """Returns a JSON object for reports; ``projected_from`` is the dimension before a projection, or None."""
        full_dimension = None if self.projection is None else self.projection.shape[0]
        return {"name": self.name, "dimension": dimension, "projected_from": full_dimension, "num_samples": num_samples}


def own_network(pipeline: Pipeline) -> FeatureNetwork:
    """Returns the model's own network; raises ValueError if it has none."""
    return FeatureNetwork(OWN_NETWORK, pipeline.network("feature_extractor"))


def named_network(name: str, modality: Modality, device: torch.device | str = "cpu") -> FeatureNetwork:
    """Returns a network that the modality offers, without a projection (see ``project_features``).

    Raises ValueError for an unknown name, with the nearest ones, and for a network that is not installed.
    """
    known: Mapping[str, Any] = modality.feature_networks
    if name not in known:
        near = difflib.get_close_matches(name, list(known), n=3, cutoff=0.3) or list(known)
        raise ValueError(
            f"there is no feature network {name!r} of the modality {modality.name} (nearest: "
            f"{', '.join(near) or 'it offers none'}); leave out --features to use {OWN_NETWORK}"
        )
    network: Any = build(known[name], "feature_extractor")
    return FeatureNetwork(name, network.eval().requires_grad_(False).to(device))


@torch.inference_mode()
def project_features(
    network: FeatureNetwork, shape: Sequence[int], device: torch.device | str = "cpu"
) -> FeatureNetwork:
    """Returns the network with its d features projected onto 128 directions, or unchanged if d is at most 128.

    shape: the shape ``(C, *S)`` of one sample. The directions are orthonormal and depend on d alone, so that figures
    can be compared. On average they shrink a squared distance by the factor 128 / d (Johnson & Lindenstrauss 1984).
    """
    dimension = network.network.features(torch.zeros(1, *shape, device=device)).shape[1]
    if dimension <= PROJECTED_DIMENSION:
        return network
    generator = torch.Generator().manual_seed(0)
    gaussian = torch.randn(dimension, PROJECTED_DIMENSION, generator=generator, dtype=torch.float64)
    directions, triangle = torch.linalg.qr(gaussian)
    # With these signs the decomposition is unique, whatever library computes it.
    directions = (directions * triangle.diagonal().sign()).float().to(device)
    return FeatureNetwork(network.name, network.network, directions)

"""Measures samples: features of one or two networks, recognised labels, the modality's statistics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from scm_media.evaluation.features import FeatureNetwork
from scm_media.evaluation.reference import embed, score_labels
from scm_media.pipeline import Pipeline


@dataclass(frozen=True)
class Instruments:
    """Measures samples by a feature network, and for a curve by a second one and the modality's statistics.

    statistics: their names; none are taken where it is empty.
    """

    network: FeatureNetwork
    second: FeatureNetwork | None = None
    statistics: Sequence[str] = ()

    def measure(
        self, pipeline: Pipeline, sample: Tensor, labels: Mapping[str, Tensor], evaluations: int = 0
    ) -> Measured:
        """Returns what is measured of samples ``(B, C, *S)`` with these labels; evaluations: a sample's."""
        own = pipeline.folder.has("feature_extractor")
        feature_extractor = pipeline.network("feature_extractor") if own else self.network
        sample = sample.to(pipeline.device)
        correct = score_labels(feature_extractor, sample, labels)
        found = pipeline.modality.statistics(sample.cpu()) if self.statistics else {}
        return Measured(
            embed(self.network, sample),
            correct,
            evaluations,
            None if self.second is None else embed(self.second, sample),
            {name: found[name].float().cpu() for name in self.statistics},
        )


@dataclass(frozen=True)
class Measured:
    """Features ``(N, d)`` of a row's samples, the fraction of labels recognised ``(N,)``, evaluations per sample.

    second: features of a second network. statistics: ``(N,)`` by name, NaN where a sample has none. Both are for a
    curve.
    """

    features: Tensor
    correct: Tensor | None
    evaluations: int
    second: Tensor | None = None
    statistics: Mapping[str, Tensor] = field(default_factory=dict)

    @classmethod
    def join(cls, parts: Sequence[Measured]) -> Measured:
        """Returns all samples of some parts of one row."""
        correct = [part.correct for part in parts if part.correct is not None]
        second = [part.second for part in parts if part.second is not None]
        return cls(
            torch.cat([part.features for part in parts]),
            torch.cat(correct) if correct else None,
            parts[0].evaluations,
            torch.cat(second) if second else None,
            {name: torch.cat([part.statistics[name] for part in parts]) for name in parts[0].statistics},
        )

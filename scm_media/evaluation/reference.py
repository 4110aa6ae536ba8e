"""What samples are compared with: statistics of the features of real data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from scm_media import weights
from scm_media.data.examples import Batch
from scm_media.evaluation.frechet import Moments, frechet_distance
from scm_media.evaluation.neighbours import precision_recall
from scm_media.interfaces import FeatureExtractor

HELD_OUT_SIZES = (500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000)


@dataclass(frozen=True)
class Reference:
    """Statistics of the training data's features, and how held-out data compare with them.

    mean ``(d,)`` and covariance ``(d, d)``: of all training samples. neighbours ``(N, d)``: some of their features.
    held_out_distances: number of held-out samples to their Fréchet distance. accuracy: share of held-out labels that
    the feature extractor tells right. precision, recall: of held-out samples; None where there are too few.
    """

    mean: Tensor
    covariance: Tensor
    neighbours: Tensor
    num_train: int
    held_out_distances: Mapping[int, float]
    accuracy: float | None
    precision: float | None
    recall: float | None

    def held_out_distance(self, num_samples: int) -> float | None:
        """The Fréchet distance of that many held-out samples; between measured numbers, linear in 1/n.

        Beyond them the nearest measured one; None where nothing was held out.
        """
        if not self.held_out_distances:
            return None
        sizes = sorted(self.held_out_distances)
        num = min(max(num_samples, sizes[0]), sizes[-1])
        low = max(size for size in sizes if size <= num)
        high = min(size for size in sizes if size >= num)
        if low == high:
            return self.held_out_distances[low]
        fraction = (1 / low - 1 / num) / (1 / low - 1 / high)
        return self.held_out_distances[low] + fraction * (self.held_out_distances[high] - self.held_out_distances[low])

    def frechet(self, features: Tensor) -> float:
        """The Fréchet distance of features ``(N, d)`` to the training data."""
        if features.shape[1] != len(self.mean):
            raise ValueError(
                f"the statistics are of features of {len(self.mean)} dimensions, the network's have "
                f"{features.shape[1]}; export the model again"
            )
        moments = Moments.of(features)
        return frechet_distance(moments.mean, moments.covariance, self.mean, self.covariance)

    def precision_recall(self, features: Tensor) -> tuple[float | None, float | None]:
        """Precision and recall of the first of features ``(N, d)`` against as many real ones; None for too few."""
        num = min(len(features), len(self.neighbours))
        return precision_recall(self.neighbours[:num], features[:num]) if num > 3 else (None, None)

    def save(self, path: str | Path) -> None:
        """Writes one safetensors file; the neighbours in half precision."""
        state = {
            "mean": self.mean,
            "covariance": self.covariance,
            "neighbours": self.neighbours.to(torch.float16),
            "held_out_sizes": torch.tensor(sorted(self.held_out_distances), dtype=torch.int64),
            "held_out_distances": torch.tensor(
                [self.held_out_distances[size] for size in sorted(self.held_out_distances)], dtype=torch.float64
            ),
        }
        config = {"_target_": f"{__name__}.Reference"}
        info = {name: getattr(self, name) for name in ("num_train", "accuracy", "precision", "recall")}
        weights.save(path, state, config, info)

    @classmethod
    def load(cls, path: str | Path) -> Reference:
        """What ``save`` wrote; ValueError for a file that is missing, cut short or another thing."""
        component = weights.read(path)
        return cls.from_component(component, path)

    @classmethod
    def from_component(cls, component: weights.Component, source: str | Path) -> Reference:
        """The statistics that a weight file holds; ValueError when it holds something else."""
        state, info = component.state, component.info
        try:
            held_out_distances = dict(
                zip(state["held_out_sizes"].tolist(), state["held_out_distances"].tolist(), strict=True)
            )
            tensors = (state["mean"], state["covariance"], state["neighbours"].float())
            _check_shapes(*tensors, held_out_distances)
            return cls(
                *tensors, info["num_train"], held_out_distances, info["accuracy"], info["precision"], info["recall"]
            )
        except KeyError as error:
            raise ValueError(
                f"{source} lacks {error}, so it holds no reference statistics; train the feature extractor"
            ) from error
        except (ValueError, TypeError, RuntimeError) as error:
            raise ValueError(f"{source} holds no reference statistics ({error}); export the model again") from error


def _check_shapes(
    mean: Tensor, covariance: Tensor, neighbours: Tensor, held_out_distances: Mapping[int, float]
) -> None:
    """Raises ValueError for tensors that are no statistics of features of one dimension, and for other floors."""
    size = mean.numel()
    shapes = [tuple(each.shape) for each in (mean, covariance, neighbours)]
    if size < 1 or shapes != [(size,), (size, size), (len(neighbours), size)]:
        raise ValueError(f"mean, covariance and neighbours have shapes {', '.join(map(str, shapes))}")
    if not all(each.is_floating_point() and bool(torch.isfinite(each).all()) for each in (mean, covariance)):
        raise ValueError("mean or covariance is not finite")
    if not all(
        isinstance(num, int) and num > 0 and isinstance(held_out_distance, float)
        for num, held_out_distance in held_out_distances.items()
    ):
        raise ValueError("floors are no distances by numbers of samples")


def make_reference(
    feature_extractor: FeatureExtractor,
    train_batches: Iterable[Batch],
    held_out_batches: Iterable[Batch],
    num_neighbours: int = 3_000,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> Reference:
    """The statistics of data that come as ``Batch`` objects: every training sample once, every held-out one once.

    num_neighbours: how many training features are kept for precision and recall, drawn by seed.
    Raises ValueError when there are fewer than two training samples.
    """
    generator = torch.Generator().manual_seed(seed)
    moments: Moments | None = None
    kept, keys = torch.empty(0), torch.empty(0)
    for batch in train_batches:
        features = embed(feature_extractor, batch.sample.to(device))
        moments = moments or Moments(features.shape[1])
        moments.update(features)
        keys = torch.cat([keys, torch.rand(len(features), generator=generator)])
        kept = torch.cat([kept.reshape(-1, features.shape[1]), features])
        keys, chosen = torch.topk(keys, min(num_neighbours, len(keys)))  # a uniform draw without knowing how many come
        kept = kept[chosen]
    if moments is None:
        raise ValueError("there are no training samples to take reference statistics of")
    held_out, right = [torch.empty(0, moments.mean.numel())], []
    for batch in held_out_batches:
        held_out.append(embed(feature_extractor, batch.sample.to(device)))
        right += [accuracy(feature_extractor, batch.sample.to(device), batch.labels)]
    features = torch.cat(held_out)
    told = [part for part in right if part is not None]
    reference = Reference(
        mean=moments.mean,
        covariance=moments.covariance,
        neighbours=kept.half().float(),
        num_train=moments.count,
        held_out_distances={},
        accuracy=float(torch.cat(told).mean()) if told else None,
        precision=None,
        recall=None,
    )
    sizes = {size for size in HELD_OUT_SIZES if size < len(features)} | (
        {len(features)} if len(features) > 1 else set()
    )
    shuffled = features[torch.randperm(len(features), generator=generator)]
    held_out_distances = {size: reference.frechet(shuffled[:size]) for size in sorted(sizes)}
    precision, recall = reference.precision_recall(shuffled)
    return replace(reference, held_out_distances=held_out_distances, precision=precision, recall=recall)


@torch.inference_mode()
def embed(feature_extractor: FeatureExtractor, sample: Tensor) -> Tensor:
    """Features ``(B, d)`` of samples ``(B, C, *S)``, float32 on the CPU."""
    return feature_extractor.features(sample).float().cpu()


@torch.inference_mode()
def labels_told(feature_extractor: FeatureExtractor, sample: Tensor, labels: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Whether the feature extractor tells each sample's label right, ``(B,)`` of 0 and 1 by name; not of those it
    scores not."""
    scores = feature_extractor.logits(sample)
    return {
        name: (scores[name].argmax(1) == value.to(sample.device)).double().cpu()
        for name, value in labels.items()
        if name in scores
    }


def accuracy(feature_extractor: FeatureExtractor, sample: Tensor, labels: Mapping[str, Tensor]) -> Tensor | None:
    """Share of each sample's labels ``(B,)`` that the feature extractor tells right; None when it scores none of
    them."""
    told = labels_told(feature_extractor, sample, labels)
    return torch.stack(list(told.values())).mean(0) if told else None

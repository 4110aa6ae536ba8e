"""Reference statistics: the features of real data that samples are compared with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from scm_media import weights
from scm_media.data.examples import Batch
from scm_media.evaluation.collecting import Collection
from scm_media.evaluation.frechet import Moments, frechet_distance
from scm_media.evaluation.neighbours import precision_recall
from scm_media.interfaces import FeatureExtractor

HELD_OUT_SIZES = (500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000)


@dataclass(frozen=True)
class Reference:
    """Statistics of the training data's features, and figures of held-out data against them.

    mean ``(d,)`` and covariance ``(d, d)``: over all training samples. neighbours ``(N, d)``: the features of some.
    held_out_distances: the Fréchet distance of so many held-out samples. accuracy: the fraction of held-out labels that
    the feature extractor recognises. precision, recall: those of held-out samples. None: too few held-out samples.
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
        """Returns the Fréchet distance of so many held-out samples; None where nothing was held out.

        It is linear in 1/n between the measured numbers, and that of the nearest measured number outside them.
        """
        num = self.nearest_held_out(num_samples)
        if num is None:
            return None
        sizes = sorted(self.held_out_distances)
        low = max(size for size in sizes if size <= num)
        high = min(size for size in sizes if size >= num)
        if low == high:
            return self.held_out_distances[low]
        fraction = (1 / low - 1 / num) / (1 / low - 1 / high)
        return self.held_out_distances[low] + fraction * (self.held_out_distances[high] - self.held_out_distances[low])

    def nearest_held_out(self, num_samples: int) -> int | None:
        """Returns so many, or the nearest number that distances are known for; None where nothing was held out."""
        sizes = self.held_out_distances.keys()
        return min(max(num_samples, min(sizes)), max(sizes)) if sizes else None

    def frechet(self, features: Tensor) -> float:
        """Returns the Fréchet distance of features ``(N, d)`` to the training data."""
        if features.shape[1] != len(self.mean):
            raise ValueError(
                f"the statistics are of features of {len(self.mean)} dimensions, the network's have "
                f"{features.shape[1]}; export the model again"
            )
        moments = Moments.of(features)
        return frechet_distance(moments.mean, moments.covariance, self.mean, self.covariance)

    def precision_recall(self, features: Tensor) -> tuple[float | None, float | None]:
        """Returns precision and recall of features ``(N, d)``, cut to as many as ``neighbours``; None for too few."""
        num = min(len(features), len(self.neighbours))
        return precision_recall(self.neighbours[:num], features[:num]) if num > 3 else (None, None)

    def save(self, path: str | Path) -> None:
        """Writes one safetensors file, with the neighbours in half precision."""
        sizes = sorted(self.held_out_distances)
        distances = [self.held_out_distances[size] for size in sizes]
        state = {
            "mean": self.mean,
            "covariance": self.covariance,
            "neighbours": self.neighbours.to(torch.float16),
            "held_out_sizes": torch.tensor(sizes, dtype=torch.int64),
            "held_out_distances": torch.tensor(distances, dtype=torch.float64),
        }
        config = {"_target_": f"{__name__}.Reference"}
        info = {name: getattr(self, name) for name in ("num_train", "accuracy", "precision", "recall")}
        weights.save(path, state, config, info)

    @classmethod
    def load(cls, path: str | Path) -> Reference:
        """Returns what ``save`` wrote; raises ValueError for a file that is missing, cut short or another thing."""
        return cls.from_component(weights.read(path), path)

    @classmethod
    def from_component(cls, component: weights.Component, source: str | Path) -> Reference:
        """Returns the statistics that a weight file holds; raises ValueError where it holds something else."""
        state, info = component.state, component.info
        try:
            sizes, distances = state["held_out_sizes"].tolist(), state["held_out_distances"].tolist()
            measured = dict(zip(sizes, distances, strict=True))
            tensors = (state["mean"], state["covariance"], state["neighbours"].float())
            _check(*tensors, measured)
            return cls(*tensors, info["num_train"], measured, info["accuracy"], info["precision"], info["recall"])
        except KeyError as error:
            raise ValueError(
                f"{source} lacks {error}, so it holds no reference statistics; train the feature extractor"
            ) from error
        except (ValueError, TypeError, RuntimeError) as error:
            raise ValueError(f"{source} holds no reference statistics ({error}); export the model again") from error


def _check(mean: Tensor, covariance: Tensor, neighbours: Tensor, held_out_distances: Mapping[int, float]) -> None:
    """Raises ValueError for tensors that are not statistics of features of one dimension, and for other distances."""
    size = mean.numel()
    shapes = [tuple(each.shape) for each in (mean, covariance, neighbours)]
    if size < 1 or shapes != [(size,), (size, size), (len(neighbours), size)]:
        raise ValueError(
            f"mean, covariance and neighbours have shapes {', '.join(map(str, shapes))}, expected (n,), (n, n) and "
            "(m, n)"
        )
    if not all(each.is_floating_point() and bool(torch.isfinite(each).all()) for each in (mean, covariance)):
        raise ValueError("mean or covariance is not finite, expected finite numbers")
    if not all(
        isinstance(num, int) and num > 0 and isinstance(value, float) for num, value in held_out_distances.items()
    ):
        raise ValueError(
            "held_out_distances must map numbers of samples to distances, as a reference of this version does"
        )


def make_reference(
    feature_extractor: FeatureExtractor,
    train_batches: Iterable[Batch],
    held_out_batches: Iterable[Batch],
    num_neighbours: int = 3_000,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> Reference:
    """Returns the statistics of batches that hold every training sample once, and every held-out sample once.

    num_neighbours: how many training features are kept for precision and recall, chosen by the seed.
    Raises ValueError for fewer than two training samples.
    """
    collection = Collection(num_neighbours, seed)
    for _ in collect(collection, feature_extractor, train_batches, held_out_batches, device):
        pass
    return as_reference(collection)


def collect(
    collection: Collection,
    feature_extractor: FeatureExtractor,
    train_batches: Iterable[Batch],
    held_out_batches: Iterable[Batch],
    device: torch.device | str = "cpu",
) -> Iterator[None]:
    """Adds the features of batches to a collection; yields after each batch, so that the collection can be kept."""
    for batch in train_batches:
        collection.add_train(embed(feature_extractor, batch.sample.to(device)))
        yield
    for batch in held_out_batches:
        sample = batch.sample.to(device)
        correct = score_labels(feature_extractor, sample, batch.labels)
        collection.add_held_out(embed(feature_extractor, sample), correct)
        yield


def as_reference(collection: Collection) -> Reference:
    """Returns the statistics of features that were collected; raises ValueError where there are none of training."""
    moments = collection.moments
    if moments is None:
        raise ValueError(
            "there are no training samples to take reference statistics of: check data.root by scm-media check"
        )
    features = collection.held_out
    reference = Reference(
        mean=moments.mean,
        covariance=moments.covariance,
        neighbours=collection.neighbours.half().float(),
        num_train=moments.count,
        held_out_distances={},
        accuracy=collection.accuracy,
        precision=None,
        recall=None,
    )
    sizes = {size for size in (*HELD_OUT_SIZES, len(features)) if 1 < size <= len(features)}
    shuffled = features[torch.randperm(len(features), generator=collection.generator)]
    held_out_distances = {size: reference.frechet(shuffled[:size]) for size in sorted(sizes)}
    precision, recall = reference.precision_recall(shuffled)
    return replace(reference, held_out_distances=held_out_distances, precision=precision, recall=recall)


@torch.inference_mode()
def embed(feature_extractor: FeatureExtractor, sample: Tensor) -> Tensor:
    """Returns features ``(B, d)`` of samples ``(B, C, *S)``, in float32 on the CPU."""
    return feature_extractor.features(sample).float().cpu()


@torch.inference_mode()
def match_labels(
    feature_extractor: FeatureExtractor, sample: Tensor, labels: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Returns for each label 1 where the feature extractor's best class is the sample's, else 0, as ``(B,)``.

    Labels that the feature extractor does not classify are left out.
    """
    scores = feature_extractor.logits(sample)
    return {
        name: (scores[name].argmax(1) == value.to(sample.device)).double().cpu()
        for name, value in labels.items()
        if name in scores
    }


def score_labels(feature_extractor: FeatureExtractor, sample: Tensor, labels: Mapping[str, Tensor]) -> Tensor | None:
    """Returns the fraction of each sample's labels ``(B,)`` that the feature extractor recognises; None without any."""
    matches = match_labels(feature_extractor, sample, labels)
    return torch.stack(list(matches.values())).mean(0) if matches else None

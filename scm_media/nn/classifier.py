"""A classifier whose last hidden layer gives features: the base of the feature extractors of each modality."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn


def classes_of(labels: Mapping[str, int]) -> dict[str, int]:
    """Returns the labels that have classes; raises ValueError if none has."""
    classes = {name: num for name, num in labels.items() if num > 0}
    if not classes:
        raise ValueError(f"a classifier needs a label with classes, got {dict(labels)}; set feature_extractor: null")
    return classes


def conv_block(in_channels: int, out_channels: int) -> nn.Sequential:
    """Returns a 3×3 convolution with batch norm and ReLU; the sides stay."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False), nn.BatchNorm2d(out_channels), nn.ReLU()
    )


def hidden_layer(in_features: int, num_features: int) -> tuple[nn.Module, ...]:
    """Returns the layers that end a trunk: flattened maps to features ``(B, num_features)``."""
    return (
        nn.Flatten(),
        nn.Linear(in_features, num_features, bias=False),
        nn.BatchNorm1d(num_features),
        nn.ReLU(),
    )


class LabelClassifier(nn.Module):
    """Scores labels from features by one linear head a label; subclasses compute the features.

    trunk: layers whose last gives the features. classes: label to number of classes. num_features: their dimension.
    """

    def __init__(self, trunk: nn.Module, classes: Mapping[str, int], num_features: int) -> None:
        super().__init__()
        self.num_features = num_features
        self.trunk = trunk
        self.heads = nn.ModuleDict({name: nn.Linear(num_features, num) for name, num in classes.items()})

    def features(self, sample: Tensor) -> Tensor:
        """Returns features ``(B, num_features)`` of samples ``(B, C, *S)`` in [-1, 1]."""
        raise NotImplementedError

    def forward(self, sample: Tensor) -> dict[str, Tensor]:
        """Returns class scores ``(B, num_classes)`` of every head by its name, for training."""
        features = self.features(sample)
        return {name: head(features) for name, head in self.heads.items()}

    def logits(self, sample: Tensor) -> dict[str, Tensor]:
        """Returns class scores ``(B, num_classes)`` by label."""
        return self.forward(sample)

"""The feature extractor of images: a small classifier; distances are measured in its penultimate layer."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from scm_media.parts import part


def _block(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False), nn.BatchNorm2d(out_channels), nn.ReLU()
    )


@part("feature_extractor")
class ImageClassifier(nn.Module):
    """Classifies images, and returns the features that it does so by.

    channels: those of the images, whose sides are at least 16 pixels.
    labels: name to number of classes; scalar labels (0) get no scores.
    width: channels of the first layer; the next have twice and four times as many.
    num_features: the dimension of the features.
    Raises ValueError when no label has classes.
    """

    def __init__(self, channels: int, labels: Mapping[str, int], width: int = 32, num_features: int = 128) -> None:
        super().__init__()
        classes = {name: num for name, num in labels.items() if num > 0}
        if not classes:
            raise ValueError(
                f"a classifier needs a label with classes, got {dict(labels)}; set feature_extractor: null"
            )
        self.num_features = num_features
        self.trunk = nn.Sequential(
            _block(channels, width),
            nn.MaxPool2d(2),
            _block(width, 2 * width),
            nn.MaxPool2d(2),
            _block(2 * width, 4 * width),
            nn.MaxPool2d(2),
            nn.AdaptiveAvgPool2d(4),
            nn.Flatten(),
            nn.Linear(4 * width * 16, num_features, bias=False),
            nn.BatchNorm1d(num_features),
            nn.ReLU(),
        )
        self.heads = nn.ModuleDict({name: nn.Linear(num_features, num) for name, num in classes.items()})
        self.to(memory_format=torch.channels_last)  # a third faster on a CPU

    def features(self, sample: Tensor) -> Tensor:
        """Returns features ``(B, num_features)`` of samples ``(B, C, H, W)`` in [-1, 1]."""
        return self.trunk(sample.contiguous(memory_format=torch.channels_last))

    def logits(self, sample: Tensor) -> dict[str, Tensor]:
        """Returns class scores ``(B, num_classes)`` by label name."""
        features = self.features(sample)
        return {name: head(features) for name, head in self.heads.items()}

    def forward(self, sample: Tensor) -> dict[str, Tensor]:
        """Returns ``logits``; training calls it."""
        return self.logits(sample)

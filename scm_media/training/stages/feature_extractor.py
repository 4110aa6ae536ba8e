"""The stage ``feature_extractor``: a classifier whose features are what figures are measured in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from scm_media.build import build
from scm_media.conditioning import NO_LABEL
from scm_media.data import Batch
from scm_media.prompts import LABEL as PROMPT
from scm_media.training.context import Context
from scm_media.training.fingerprint import full_fingerprint
from scm_media.training.optimization import Task
from scm_media.training.run_folder import save_stage_weights


class ClassificationLoss(nn.Module):
    """Cross entropy of a classifier, averaged over the labels of a sample that are given (not ``NO_LABEL``).

    A network with a method ``pose(sample, labels) -> (sample, labels)`` is trained on the result of that, so that it
    can set itself tasks whose answers are known (the order of frames) beside the labels of the data.
    """

    def __init__(self, network: nn.Module, smoothing: float = 0.05) -> None:
        super().__init__()
        self.network, self.smoothing = network, smoothing

    def forward(self, sample: Tensor, labels: Mapping[str, Tensor], step: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the loss over samples ``(B, C, *S)`` and the terms loss and accuracy of each sample."""
        pose: Any = getattr(self.network, "pose", None)
        if pose is not None:
            sample, labels = pose(sample, labels)
        losses, hits, given = [], [], []
        for name, scores in self.network(sample).items():
            wanted = labels[name]
            losses.append(
                nnf.cross_entropy(
                    scores.float(), wanted, reduction="none", label_smoothing=self.smoothing, ignore_index=NO_LABEL
                )
            )
            hits.append((scores.argmax(-1) == wanted).float())
            given.append((wanted != NO_LABEL).float())
        num = torch.stack(given).sum(0).clamp(min=1)
        loss = torch.stack(losses).sum(0) / num
        return loss.mean(), {"loss": loss.detach(), "accuracy": torch.stack(hits).sum(0) / num}


def feature_extractor_task(context: Context) -> Task:
    """Returns the training of a network that classifies the data by its labels."""
    settings = dict(context.config["feature_extractor"])
    labels = {name: num for name, num in context.num_classes.items() if name != PROMPT}
    config = {**settings.pop("network"), "labels": labels}
    network = build(config, "feature_extractor")
    context.load_start(network, "feature_extractor")

    def inputs(batch: Batch) -> tuple[Any, ...]:
        return batch.sample, batch.labels

    return Task(
        name="feature_extractor",
        loss=ClassificationLoss(network),
        model=network,
        settings={"warmup_steps": 0, "decay": "cosine", "ema_std": 0.05} | settings,
        inputs=inputs,
        finish=save_stage_weights(context, "feature_extractor", config),
        training_fingerprint=full_fingerprint(context, "feature_extractor"),
        precision="32-true",  # figures must not depend on a recipe's precision
    )

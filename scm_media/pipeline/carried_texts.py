"""Remarks on models that carry the texts of a small part of their training data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scm_media.pipeline.labels import LabelSet
from scm_media.prompts import LABEL

SMALL_PART = 0.5
"""The part of the training data that the texts of a model must have, so that nothing is remarked."""


def few_texts(labels: LabelSet, num_train: int) -> list[str]:
    """Returns a remark where samples are for texts that few of the training samples have, else an empty list.

    labels: those of an exported model, whose counts of the label ``prompt`` say how often the data have each text that
    it carries. num_train: the number of training samples that the reference is of. Samples of a part of the texts have
    another distribution than the training data, however good they are.
    """
    covered = sum(labels.counts.get(LABEL) or ())
    if LABEL not in labels.names or not 0 < covered < SMALL_PART * num_train:
        return []
    return [
        f"samples are for the {len(labels.names[LABEL])} texts that the model carries, which at most {covered} of the "
        f"{num_train} training samples have. The distance is that from all of these, so it is larger than that of "
        "the run which the model was exported from: evaluate that run"
    ]


def measured_with_all_texts(labels: LabelSet, metrics: Mapping[str, Any]) -> list[str]:
    """Returns a remark where figures are of more texts than the model carries, else an empty list.

    labels: as in ``few_texts``. metrics: an evaluation's result, which remarks on few texts where it is of these alone.
    """
    few = few_texts(labels, metrics.get("num_reference") or 0)
    if not few or set(few) & set(metrics.get("remarks") or ()):
        return []
    return [
        "these figures are of the run that the model was exported from, with the texts of all its training data; the "
        f"model carries {len(labels.names[LABEL])} of them, and would be measured with these"
    ]

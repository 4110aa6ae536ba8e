"""A remark on models that carry the texts of a small part of their training data."""

from __future__ import annotations

from scm_media.pipeline.labels import LabelSet
from scm_media.prompts import LABEL

SMALL_PART = 0.5
"""The part of the training data that the texts of a model must cover, so that nothing is remarked."""


def few_texts(labels: LabelSet, num_train: int) -> list[str]:
    """Returns a remark where samples are for texts that few of the training samples have, else an empty list.

    num_train: the number of training samples that the reference is of. Samples of other texts than those of the
    reference have another distribution, however good they are.
    """
    covered = sum(labels.combinations.values())
    if LABEL not in labels.names or not 0 < covered < SMALL_PART * num_train:
        return []
    return [
        f"samples are for the {len(labels.names[LABEL])} texts that the model carries, which {covered} of the "
        f"{num_train} training samples have, and the reference is of all of these: the distance is mostly that of the "
        "texts; evaluate the run that the model was exported from, which has them all"
    ]

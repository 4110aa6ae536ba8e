"""The texts that go along with an exported model: some of the training data's, as many as fit into a few megabytes.

A model that leaves its run needs texts to draw samples for, and embeddings for people without its text encoder. All of
them may take gigabytes; for any other text the encoder is opened.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from scm_media import weights
from scm_media.pipeline.description import ModelDescription
from scm_media.pipeline.labels import format_combinations, parse_combinations
from scm_media.prompts import LABEL

MAX_BYTES = 4 << 20
"""Bytes of embeddings that go along."""
LEAST = 16
"""Texts that go along at least."""


def kept_texts(description: ModelDescription, bank: weights.Component) -> list[int] | None:
    """Returns the numbers of the texts that go along with a model, None for all of them.

    They are spread evenly over those that samples are drawn for.
    """
    if description.text is None:
        return None
    num = len(description.labels[LABEL])
    row = sum(tensor[0].numel() * tensor.element_size() for tensor in bank.state.values())
    room = max(LEAST, MAX_BYTES // max(1, row))
    if num <= room:
        return None
    place = _place(description)
    counts = description.label_counts.get(LABEL) or [1] * num
    drawn = sorted({numbers[place] for numbers in parse_combinations(description.label_combinations)})
    drawn = drawn or [number for number, count in enumerate(counts) if count]
    step = -(-len(drawn) // room)
    return list(drawn[::step])


def select_texts(bank: weights.Component, kept: Sequence[int]) -> weights.Component:
    """Returns a bank with these texts, and the empty prompt."""
    prompts = bank.config["prompts"]
    rows = torch.tensor([*kept, len(prompts)])
    state = {name: tensor[rows] for name, tensor in bank.state.items()}
    return weights.Component(state, {**bank.config, "prompts": [prompts[number] for number in kept]}, bank.info)


def describe_texts(description: ModelDescription, kept: Sequence[int]) -> ModelDescription:
    """Returns the description of a model with these texts alone, from which texts of samples are drawn."""
    number, place = {old: new for new, old in enumerate(kept)}, _place(description)
    combinations = {
        (*numbers[:place], number[numbers[place]], *numbers[place + 1 :]): count
        for numbers, count in parse_combinations(description.label_combinations).items()
        if numbers[place] in number
    }
    names, counts = description.labels[LABEL], description.label_counts.get(LABEL) or ()
    own = [counts[old] for old in kept] if counts else []
    return replace(
        description,
        labels={**description.labels, LABEL: [names[old] for old in kept]},
        label_counts={**description.label_counts, LABEL: own if sum(own) else []},
        label_combinations=format_combinations(combinations),
    )


def _place(description: ModelDescription) -> int:
    """Returns the place of the text among the labels that have classes."""
    return [name for name, classes in description.labels.items() if classes].index(LABEL)

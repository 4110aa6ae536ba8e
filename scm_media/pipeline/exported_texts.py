"""The texts that a model lists, and those whose embeddings go along with an export: some of the training data's.

A model needs texts to draw samples for, and an export embeddings for people without its text encoder. All of them may
take gigabytes; for any other text the encoder is opened.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from scm_media import weights
from scm_media.pipeline.description import ModelDescription
from scm_media.pipeline.labels import format_combinations, parse_combinations
from scm_media.prompts import LABEL, text_names
from scm_media.text.cleaning import clean_text

MAX_LISTED = 4096
"""Texts that a model lists."""
MAX_BYTES = 4 << 20
"""Bytes of embeddings that go along with an export."""
LEAST = 16
"""Texts that go along at least."""


def limit_texts(description: ModelDescription) -> ModelDescription:
    """Returns the description with ``MAX_LISTED`` texts at most; a model without text, or with fewer, is unchanged."""
    if description.text is None or len(description.labels.get(LABEL, ())) <= MAX_LISTED:
        return description
    return describe_texts(description, _spread(description, MAX_LISTED))


def exported_texts(
    description: ModelDescription, bank: weights.Component, chosen: Sequence[str] | None = None
) -> ModelDescription:
    """Returns the description with the texts whose embeddings go along with an export.

    bank: all embeddings of the model. chosen: the texts; None for some that are spread evenly over the listed ones.
    Raises ValueError for a chosen text that the bank lacks, and for a model without text.
    """
    if chosen is not None:
        return _chosen_texts(description, bank, [clean_text(each) for each in chosen])
    if description.text is None:
        return description
    row = sum(tensor[0].numel() * tensor.element_size() for tensor in bank.state.values())
    room = max(LEAST, MAX_BYTES // max(1, row))
    if len(description.labels[LABEL]) <= room:
        return description
    return describe_texts(description, _spread(description, room))


def select_texts(bank: weights.Component, names: Sequence[str]) -> weights.Component:
    """Returns a bank with the texts of these names, and the empty prompt; the names of others are left out."""
    prompts = bank.config["prompts"]
    number = {name: place for place, name in enumerate(text_names(prompts))}
    kept = [number[name] for name in names if name in number]
    rows = torch.tensor([*kept, len(prompts)])
    state = _without_padding({name: tensor[rows] for name, tensor in bank.state.items()})
    return weights.Component(state, {**bank.config, "prompts": [prompts[place] for place in kept]}, bank.info)


def _without_padding(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Returns embeddings without the positions at the end that no text has a token at."""
    if "token_mask" not in state:
        return state
    used = state["token_mask"].bool().any(0).nonzero()
    longest = int(used.max()) + 1 if len(used) else 1
    cut = {name: state[name][:, :longest].contiguous() for name in ("tokens", "token_mask")}
    return {**state, **cut}


def _chosen_texts(description: ModelDescription, bank: weights.Component, chosen: Sequence[str]) -> ModelDescription:
    """Returns the description with these texts, whether it lists them or not."""
    if description.text is None:
        raise ValueError("the model takes no text, so that no texts can be chosen to go along: leave --texts out")
    known = set(bank.config["prompts"])
    if unknown := [text for text in chosen if text not in known]:
        raise ValueError(
            f"{len(unknown)} of {len(chosen)} texts to go along are not among the {len(known)} that the model carries "
            f"(the first: {unknown[0]!r:.100}): choose texts of its training data, or export without --texts"
        )
    listed = {name: number for number, name in enumerate(description.labels[LABEL])}
    names = dict.fromkeys(text_names(chosen))
    found = describe_texts(description, sorted(listed[name] for name in names if name in listed))
    unlisted = [name for name in names if name not in listed]
    counts = found.label_counts.get(LABEL) or ()
    return replace(
        found,
        labels={**found.labels, LABEL: [*found.labels[LABEL], *unlisted]},
        label_counts={**found.label_counts, LABEL: [*counts, *(1 for _ in unlisted)] if counts else []},
    )


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


def _spread(description: ModelDescription, room: int) -> list[int]:
    """Returns the numbers of at most ``room`` texts, spread evenly over those that samples are drawn for."""
    place, num = _place(description), len(description.labels[LABEL])
    counts = description.label_counts.get(LABEL) or [1] * num
    drawn = sorted({numbers[place] for numbers in parse_combinations(description.label_combinations)})
    drawn = drawn or [number for number, count in enumerate(counts) if count]
    return drawn[:: -(-len(drawn) // room)]


def _place(description: ModelDescription) -> int:
    """Returns the place of the text among the labels that have classes."""
    return [name for name, classes in description.labels.items() if classes].index(LABEL)

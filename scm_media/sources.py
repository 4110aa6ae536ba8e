"""Opens the data that a recipe describes, with their texts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scm_media.build import build
from scm_media.data import Dataset
from scm_media.data.captions import add_captions
from scm_media.data.known_files import remember_files
from scm_media.modality import Modality
from scm_media.prompts import LABEL

SPLITS = ("train", "held_out")


def open_data(config: Mapping[str, Any], modality: Modality, look_anew: bool = False) -> dict[str, Dataset]:
    """Returns the splits ``train`` and ``held_out`` of a recipe's data, with their texts where the recipe has any.

    look_anew: every file is looked at, also one that was found usable before and has not changed since.
    Data that come with embeddings of prompts (``data=none data.prompts=FILE``) keep these. Raises ValueError for data
    that cannot be opened, and for a recipe with ``text`` whose data have no texts.
    """
    with remember_files(config, modality, look_anew):
        splits: dict[str, Dataset] = {
            split: build(config["data"], "data", modality=modality, split=split) for split in SPLITS
        }
    text = config.get("text")
    if text is None or any(data.prompt_bank is not None for data in splits.values()):
        return splits
    known = splits["train"].label_names
    if unknown := [name for name in text["labels"] or () if name not in known]:
        raise ValueError(f"text.labels: the data have no {', '.join(unknown)}; there are {', '.join(known) or 'none'}")
    if any(LABEL in data.label_names for data in splits.values()):
        raise ValueError(f"the data have a label {LABEL}, which is the name of their texts: call it otherwise")
    return dict(add_captions(splits, text["templates"], text["per_example"], text["missing"]))

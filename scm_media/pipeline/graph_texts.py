"""The embeddings of texts beside a student's graph, for people who run it without this package."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scm_media import weights
from scm_media.pipeline.export import exported_description, without_folders, write_json
from scm_media.pipeline.exported_texts import select_texts
from scm_media.pipeline.loaded_model import LoadedModel
from scm_media.prompts import LABEL

EMBEDDINGS, PROMPTS = "texts.npz", "texts.json"


def write_texts(model: LoadedModel, folder: Path, texts: Sequence[str] | None) -> dict[str, Any] | None:
    """Writes embeddings of texts as ``texts.npz`` and the texts as ``texts.json``, and returns what a manifest says.

    Row k of ``tokens (N, l, d)``, ``token_mask (N, l)`` and ``pooled (N, p)`` is that of text k; l is at most the
    graph's number of tokens. texts: those that go along; None for some of the model's. Returns None for a model without
    text. Raises ValueError for texts that the model does not carry, or given to a model without text.
    """
    description = exported_description(model.folder, texts)
    if model.text is None:
        return None
    kept = select_texts(model.folder.read("prompts"), description.labels[LABEL])
    arrays: dict[str, Any] = {}
    for name, tensor in kept.state.items():
        array = tensor[:-1].float().numpy()  # the last one is no text
        arrays[name] = array.astype(np.bool_ if name == "token_mask" else np.float16)
    arrays.setdefault("token_mask", np.ones(arrays["tokens"].shape[:2], np.bool_))
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    weights.write_whole(folder / EMBEDDINGS, file.getvalue())
    write_json(folder / PROMPTS, kept.config["prompts"])
    encoder = without_folders(model.text.bank.encoder or {})
    return {
        "embeddings": EMBEDDINGS,
        "prompts": PROMPTS,
        "number": len(kept.config["prompts"]),
        "encoder": encoder | {"max_tokens": model.text.num_tokens},
    }

"""Embeds the texts of a run's data once, into ``<run_dir>/prompts.safetensors``, from which training reads them."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from scm_media.data.captions import CaptionTable
from scm_media.pipeline.model_folder import PROMPTS_FILE, ModelFolder
from scm_media.prompts import LABEL, PromptBank
from scm_media.text import TextEncoder, find_digest, find_widths, make_bank, open_encoder
from scm_media.training.context import Context

DTYPES = {"float16": torch.float16, "float32": torch.float32}
Progress = Callable[[str, int, int], None]


def texts_file(context: Context) -> Path:
    """Returns the file of a run's embedded texts."""
    return context.run_dir / PROMPTS_FILE


def has_texts(context: Context) -> bool:
    """Returns whether a run's texts are embedded, as a recipe without text needs none to be."""
    return _table(context) is None or texts_file(context).exists()


def write_texts(context: Context, progress: Progress | None = None) -> None:
    """Embeds the texts of both splits, unless the run has their embeddings; does nothing for a recipe without text.

    Embeddings of another encoder, type or length are made anew before networks were trained on them. Raises ValueError
    where the encoder cannot be opened, and for such embeddings after that.
    """
    table = _table(context)
    if table is None:
        return
    settings, file = context.config["text"], texts_file(context)
    if file.exists():
        kept = PromptBank.load(file)
        if differing := _compare(settings, kept):
            _refuse_where_trained(context, differing)
        elif kept.prompts == table.texts:
            return
    encoder = open_text_encoder(settings, str(context.device))
    begun = time.monotonic()
    bank = make_bank(encoder, table.texts, progress)
    _narrow(bank, settings["dtype"]).save(file)
    seconds = time.monotonic() - begun
    print(f"text: {len(table.texts)} texts embedded by {encoder.name} in {seconds:.0f} s", file=sys.stderr)


def read_texts(context: Context) -> None:
    """Gives both splits of the data the run's embeddings; does nothing for a recipe without text."""
    if _table(context) is None:
        return
    bank = PromptBank.load(texts_file(context))
    for model in (context.start, context.source):
        if isinstance(model, ModelFolder) and model.has("prompts"):
            _check_same_encoder(model, bank)
    for data in (context.data, context.held_out):
        data.prompt_bank = bank


def stand_in(context: Context) -> None:
    """Gives both splits embeddings of zeros, of the encoder's widths, where speed is measured.

    Does nothing for a recipe without text, and where there are embeddings. Raises ValueError where the encoder is not
    there.
    """
    settings = context.config["text"]
    if settings is None or context.data.prompt_bank is not None:
        return
    widths, num = find_widths(settings["encoder"]), max(1, len(context.data.label_names.get(LABEL, ())))
    embeddings = {
        "tokens": torch.zeros(1, 1, 1).expand(num + 1, settings["max_tokens"], widths["tokens"]),
        "token_mask": torch.ones(1, 1, dtype=torch.bool).expand(num + 1, settings["max_tokens"]),
        "pooled": torch.zeros(1, 1).expand(num + 1, widths["pooled"]),
    }
    for data in (context.data, context.held_out):
        data.prompt_bank = PromptBank([str(number) for number in range(num)], embeddings)


def _narrow(bank: PromptBank, dtype: str) -> PromptBank:
    """Returns the bank with tokens of a type; raises ValueError where they do not fit it."""
    tokens = bank.embeddings["tokens"].to(DTYPES[dtype])
    if not bool(torch.isfinite(tokens).all()):
        raise ValueError(f"embeddings of texts leave the range of {dtype}: set text.dtype=float32")
    return PromptBank(bank.prompts, {**bank.embeddings, "tokens": tokens}, bank.encoder)


def open_text_encoder(settings: Mapping[str, Any], device: str = "cpu") -> TextEncoder:
    """Returns the encoder that a recipe's section ``text`` names."""
    return open_encoder(settings["encoder"], max_tokens=settings["max_tokens"], device=device)


def _table(context: Context) -> CaptionTable | None:
    """Returns the texts of the data; None without, and where data come with embeddings of their own."""
    return None if context.config["text"] is None else context.data.caption_table


def _compare(settings: Mapping[str, Any], bank: PromptBank) -> list[str]:
    """Returns in what a run's embeddings differ from those that the recipe asks for."""
    made = bank.encoder or {}
    kept = {"max_tokens": made.get("max_tokens"), "dtype": str(bank.embeddings["tokens"].dtype).removeprefix("torch.")}
    differing = [f"text.{key} {old} → {settings[key]}" for key, old in kept.items() if old not in (None, settings[key])]
    try:
        digest = find_digest(settings["encoder"])
    except ValueError:  # it is not needed where the embeddings are there
        return differing
    if made.get("digest") not in (None, digest):
        differing.append(f"text.encoder {made.get('name')} → {settings['encoder']}")
    return differing


def _refuse_where_trained(context: Context, differing: Sequence[str]) -> None:
    """Raises ValueError where a network of the run was trained with embeddings that the recipe now differs from."""
    stages = ("teacher", "guide", "warm_start", "student")
    begun = [stage for stage in stages if (context.run_dir / stage).exists()]
    if begun:
        raise ValueError(
            f"{context.run_dir}: {', '.join(begun)} learned from other embeddings ({'; '.join(differing)}): set "
            "that back, or use another run_dir"
        )


def _check_same_encoder(model: ModelFolder, bank: PromptBank) -> None:
    """Raises ValueError for a model to start from whose texts another encoder embedded."""
    config = model.read("prompts", check=False).config.get("encoder") or {}
    own = bank.encoder or {}
    if config.get("digest", own.get("digest")) != own.get("digest"):
        raise ValueError(
            f"{model.path} was trained with the text encoder {config.get('name')}, this recipe has {own.get('name')} "
            "(their digests differ): set text.encoder to the model's"
        )

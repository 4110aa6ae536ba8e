"""Embeds the texts of a run's data once, into ``<run_dir>/prompts.safetensors``, from which training reads them."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from scm_media.data.captions import CaptionTable
from scm_media.prompts import LABEL, PromptBank
from scm_media.text import TextEncoder, find_widths, make_bank, open_encoder
from scm_media.training.context import Context

FILE = "prompts.safetensors"
DTYPES = {"float16": torch.float16, "float32": torch.float32}
Progress = Callable[[str, int, int], None]


def texts_file(context: Context) -> Path:
    """Returns the file of a run's embedded texts."""
    return context.run_dir / FILE


def write_texts(context: Context, progress: Progress | None = None) -> None:
    """Embeds the texts of both splits, unless the run has their embeddings; does nothing for a recipe without text.

    Raises ValueError where the encoder cannot be opened, and where the run's embeddings are another encoder's.
    """
    table = _table(context)
    if table is None:
        return
    settings, file = context.config["text"], texts_file(context)
    if file.exists():
        kept = PromptBank.load(file)
        _check_length(settings, kept, file)
        if kept.prompts == table.texts:
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


def open_text_encoder(settings: Any, device: str = "cpu") -> TextEncoder:
    """Returns the encoder that a recipe's section ``text`` names."""
    return open_encoder(settings["encoder"], max_tokens=settings["max_tokens"], device=device)


def _table(context: Context) -> CaptionTable | None:
    """Returns the texts of the data; None without, and where data come with embeddings of their own."""
    return None if context.config["text"] is None else context.data.caption_table


def _check_length(settings: Any, bank: PromptBank, file: Path) -> None:
    """Raises ValueError where a run's embeddings were made with another length than the recipe's."""
    made, wanted = (bank.encoder or {}).get("max_tokens"), settings["max_tokens"]
    if made not in (None, wanted):
        raise ValueError(
            f"{file} was made with text.max_tokens={made}, the recipe has {wanted}: set it back, or use another run_dir"
        )

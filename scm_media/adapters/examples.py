"""Conditioning for a network when nothing is known of its data: random embeddings of the right widths."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from scm_media.adapters.adapter import ADAPTERS
from scm_media.conditioning import Conditioning

NUM_TOKENS = 8


def random_conditioning(network: str, config: Mapping[str, Any], num: int = 2, seed: int = 0) -> Conditioning:
    """Returns conditioning for ``num`` samples with what a network class needs, in the widths of its configuration."""
    generator = torch.Generator().manual_seed(seed)
    widths = dict(ADAPTERS[network].inputs(config))
    labels = {"class": torch.arange(num) % widths["label"]} if "label" in widths else {}
    given: dict[str, Any] = {}
    if "tokens" in widths:
        length = config.get("max_text_seq_length", NUM_TOKENS)  # CogVideoX counts on its own
        given["tokens"] = torch.randn(num, length, widths["tokens"], generator=generator)
    if "pooled" in widths:
        given["pooled"] = torch.randn(num, widths["pooled"], generator=generator)
    return Conditioning(labels=labels, **given)

"""The interface of text encoders, and the bank of embeddings that one makes of prompts."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from scm_media.prompts import PromptBank
from scm_media.text.cleaning import clean_text

Progress = Callable[[str, int, int], None]
"""Is called with what is counted, the number done and the number of all."""


@dataclass(frozen=True)
class Encoded:
    """The embeddings of N texts, on the CPU.

    tokens: ``(N, L, d)`` float16 or float32, zeros after a text's end; L is the number of tokens of the longest.
    token_mask: ``(N, L)`` bool, true at tokens. pooled: ``(N, p)`` float32, one vector for each text. num_cut: ``(N,)``
    int64, the tokens at the end of each text that did not fit into the encoder's ``max_tokens``.
    """

    tokens: Tensor
    token_mask: Tensor
    pooled: Tensor
    num_cut: Tensor


class TextEncoder(ABC):
    """A frozen network that turns texts into embeddings, with its tokenizer.

    name: where it comes from, for people. digest: a SHA-256 over its weights, configuration and tokenizer, which tells
    it from any other. token_width, pooled_width: the sizes of the embeddings of a token and of a text. max_tokens: the
    largest number of tokens of a text, special ones such as an end token included; longer texts are cut.
    """

    name: str
    digest: str
    token_width: int
    pooled_width: int
    max_tokens: int

    @abstractmethod
    def encode(self, texts: Sequence[str], progress: Progress | None = None) -> Encoded:
        """Returns the embeddings of texts, which ``clean_text`` cleans first; an empty text is the empty prompt.

        The embeddings of a text do not depend on the other texts. Raises ValueError for what is no text.
        """

    @abstractmethod
    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Returns the number of tokens of each text, special ones included, before anything is cut."""

    @abstractmethod
    def to(self, device: torch.device | str) -> TextEncoder:
        """Moves the network to a device, such as back to the CPU while other networks need the memory; returns self."""

    def describe(self) -> dict[str, Any]:
        """Returns what tells this encoder's embeddings from those of others: name, digest and max_tokens."""
        return {"name": self.name, "digest": self.digest, "max_tokens": self.max_tokens}


def make_bank(encoder: TextEncoder, prompts: Sequence[str], progress: Progress | None = None) -> PromptBank:
    """Returns the bank of prompts, which are cleaned first; its last row has the embeddings of the empty prompt.

    The number of prompts that were cut is printed to the standard error. Raises ValueError for prompts that are empty,
    or the same, after they were cleaned.
    """
    cleaned = [clean_text(each) for each in prompts]
    if "" in cleaned:
        raise ValueError(
            f"prompt {cleaned.index('')} is empty: leave it out, as each bank has the embeddings of the empty prompt"
        )
    if len(set(cleaned)) < len(cleaned):
        twice = Counter(cleaned).most_common(1)[0][0]
        raise ValueError(f"the prompt {twice!r:.80} is there twice (spaces aside): leave one of them out")
    encoded = encoder.encode([*cleaned, ""], progress)
    if num := int((encoded.num_cut > 0).sum()):
        print(
            f"{num} of {len(cleaned)} prompts have more than the {encoder.max_tokens} tokens of {encoder.name}: they "
            "were cut",
            file=sys.stderr,
        )
    embeddings = {"tokens": encoded.tokens, "token_mask": encoded.token_mask, "pooled": encoded.pooled}
    return PromptBank(cleaned, embeddings, encoder.describe())

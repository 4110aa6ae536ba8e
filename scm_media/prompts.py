"""The text embeddings of a list of prompts, which networks of other frameworks are conditioned on.

A prompt is a class of the label ``prompt``. A network that has a ``PromptBank`` looks its embeddings up, those of the
empty prompt for a sample without one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scm_media import weights
from scm_media.conditioning import Conditioning

LABEL = "prompt"
"""The label whose classes are the prompts."""
LONGEST = 190
"""Characters of a prompt in the name of its class."""
NUM_SAMPLED = 4096
ENTRIES = ("tokens", "token_mask", "pooled")


class PromptBank:
    """Prompts with their embeddings.

    prompts: N texts. embeddings: ``tokens`` ``(N + 1, L, d)``, and, where the network takes them, ``token_mask``
    ``(N + 1, L)`` and ``pooled`` ``(N + 1, d)``; the last row is that of the empty prompt. encoder: describes what made
    the embeddings, as ``scm_media.text.TextEncoder.describe`` does; None where it is not known. Raises ValueError for
    other names, numbers of rows and texts that stand twice.
    """

    def __init__(
        self, prompts: Sequence[str], embeddings: Mapping[str, Tensor], encoder: Mapping[str, Any] | None = None
    ) -> None:
        self.prompts, self.embeddings = tuple(prompts), dict(embeddings)
        self.encoder = None if encoder is None else dict(encoder)
        if "tokens" not in self.embeddings or self.embeddings.keys() - set(ENTRIES):
            raise ValueError(
                "embeddings of prompts are tokens (N + 1, L, d) and, as the network takes them, token_mask and pooled; "
                f"got {', '.join(self.embeddings) or 'none'}"
            )
        if len(set(self.prompts)) < len(self.prompts) or not all(self.prompts):
            raise ValueError(
                "prompts must be different texts, none of them empty: the last embedding is the empty one's"
            )
        for name, tensor in self.embeddings.items():
            if len(tensor) != len(self.prompts) + 1:
                raise ValueError(
                    f"{name} has {len(tensor)} rows for {len(self.prompts)} prompts: one each is expected, and a last "
                    "one of the empty prompt"
                )

    def __deepcopy__(self, memo: dict[int, Any]) -> PromptBank:
        """Returns itself: copies of a network look up the same embeddings."""
        return self

    def save(self, path: Path | str) -> None:
        """Writes the bank to one safetensors file."""
        described = {} if self.encoder is None else {"encoder": self.encoder}
        weights.save(path, self.embeddings, {"prompts": list(self.prompts), **described})

    @classmethod
    def load(cls, path: Path | str) -> PromptBank:
        """Returns the bank of a file, whose tensors stay mapped from it. Raises ValueError for any other file."""
        return cls.from_component(weights.read(path, check=False), path)

    @classmethod
    def from_component(cls, found: weights.Component, path: Path | str) -> PromptBank:
        """Returns the bank that a weight file holds; raises ValueError, naming the file, where it is something else."""
        prompts = found.config.get("prompts")
        if not isinstance(prompts, list) or not all(isinstance(each, str) for each in prompts):
            raise ValueError(
                f"{path} holds no prompts: make it with scm_media.prompts.PromptBank(prompts, embeddings).save()"
            )
        encoder = found.config.get("encoder")
        if not isinstance(encoder, dict | None):
            raise ValueError(f"{path}: encoder is {encoder!r:.80}, expected a mapping; make the prompts again")
        try:
            return cls(prompts, found.state, encoder)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    def fingerprint(self) -> str:
        """Returns a digest (SHA-256) of prompts, encoder, and of up to 4,096 values of each kind of embedding."""
        found = hashlib.sha256("\0".join(self.prompts).encode())
        if self.encoder is not None:
            found.update(json.dumps(self.encoder, sort_keys=True).encode())
        for name, tensor in sorted(self.embeddings.items()):
            flat = tensor.reshape(-1)
            sampled = flat[:: max(1, len(flat) // NUM_SAMPLED)][:NUM_SAMPLED].double()
            found.update(f"{name} {tuple(tensor.shape)}".encode() + sampled.numpy().tobytes())
        return found.hexdigest()

    def condition(self, cond: Conditioning) -> Conditioning:
        """Returns conditioning with the embeddings of the label ``prompt`` in its place.

        Raises ValueError for conditioning without this label.
        """
        index = cond.labels.get(LABEL)
        if index is None:
            raise ValueError(f"a network with prompts needs the label {LABEL}, got {', '.join(cond.labels) or 'none'}")
        labels = {name: each for name, each in cond.labels.items() if name != LABEL}
        return replace(cond, labels=labels, **self.select(index))

    def select(self, index: Tensor) -> dict[str, Tensor]:
        """Returns the embeddings of prompts by number ``(B,)``, those of the empty prompt for a negative number."""
        rows = torch.where(index < 0, len(self.prompts), index).cpu()
        return {name: tensor[rows].to(index.device) for name, tensor in self.embeddings.items()}


@dataclass(frozen=True)
class TextInputs:
    """Gives networks the embeddings of texts in the place of the label ``prompt``.

    labels: the labels that networks are given beside the text; None for all.
    """

    bank: PromptBank
    labels: Sequence[str] | None = None

    def __call__(self, cond: Conditioning) -> Conditioning:
        """Returns the conditioning with ``tokens``, ``token_mask`` and ``pooled`` of each sample's text, in float32.

        A sample without text has a mask that is false everywhere. Raises ValueError without the label ``prompt``.
        """
        index = cond.labels.get(LABEL)
        if index is None:
            raise ValueError(f"a network of texts needs the label {LABEL}, got {', '.join(cond.labels) or 'none'}")
        found = self.bank.select(index)
        return self.fill(cond, found, index >= 0)

    def fill(self, cond: Conditioning, embeddings: Mapping[str, Tensor], given: Tensor) -> Conditioning:
        """Returns the conditioning with these embeddings of texts, which a sample has where given ``(B,)`` is true."""
        tokens = embeddings["tokens"].float()
        mask = embeddings.get("token_mask")
        mask = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device) if mask is None else mask.bool()
        pooled = embeddings.get("pooled")
        return replace(
            cond,
            labels={name: label for name, label in cond.labels.items() if self.shows(name)},
            tokens=tokens,
            token_mask=mask & given[:, None],
            pooled=None if pooled is None else pooled.float(),
        )

    def shows(self, label: str) -> bool:
        """Returns whether networks are given a label."""
        return label != LABEL and (self.labels is None or label in self.labels)


def text_names(texts: Sequence[str]) -> tuple[str, ...]:
    """Returns texts as names of classes: long ones are cut and end in a digest, whatever texts stand beside them."""

    def digest(text: str) -> str:
        return hashlib.blake2b(text.encode(), digest_size=3).hexdigest()

    return tuple(text if len(text) <= LONGEST else f"{text[:LONGEST]}… {digest(text)}" for text in texts)

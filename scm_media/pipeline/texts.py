"""Texts of samples as conditioning: known ones from the model's embeddings, others by its text encoder."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as nnf
from torch import Tensor

from scm_media.conditioning import Conditioning
from scm_media.display import printable
from scm_media.prompts import LABEL, PromptBank, TextInputs, text_names
from scm_media.text import TextEncoder, find_digest, open_encoder

RARE = 0.01
"""Fraction of the training texts that are as far from their nearest neighbour as a text that is warned about."""
MOST_COMPARED = 2048
MOST_SHOWN = 100


class TextWarning(UserWarning):
    """Says that a text is cut, or unlike those that a model knows."""


class Texts:
    """Turns the texts of samples into conditioning.

    bank: the embeddings that the model carries. settings: the description's ``text``. source: the model, for errors.
    encoder: where the text encoder is; None for where the description says.
    """

    def __init__(
        self, bank: PromptBank, settings: Mapping[str, Any], source: Path, encoder: str | Path | None = None
    ) -> None:
        self.bank, self.settings, self.source, self.place = bank, settings, source, encoder
        self.inputs = TextInputs(bank, settings["labels"])
        self._rows = {text: row for row, text in enumerate(bank.prompts)}
        self._named = dict(zip(text_names(bank.prompts), bank.prompts, strict=True))
        self._made: dict[str, Mapping[str, Tensor]] = {}

    def condition(self, cond: Conditioning, texts: Sequence[str | None]) -> Conditioning:
        """Returns the conditioning with the embeddings of the samples' texts; None and "" are no text.

        Warns of texts that are far from all that the model was trained with. Raises ValueError where a text is not
        among the model's own and its encoder is not there, or is another one.
        """
        rows = [self._row(text or "") for text in texts]
        longest = max(row["tokens"].shape[0] for row in rows)
        found = {name: torch.stack([_pad(row[name], name, longest) for row in rows]) for name in rows[0]}
        return self.inputs.fill(cond, found, torch.tensor([bool(text) for text in texts]))

    @property
    def num_tokens(self) -> int:
        """Returns the largest number of tokens that a text has."""
        return max(int(self.settings["max_tokens"]), self.bank.embeddings["tokens"].shape[1])

    def whole(self, labels: Mapping[str, Any]) -> dict[str, Any]:
        """Returns labels with the whole text in the place of the name that a long one is drawn by."""
        return {name: self._named.get(value, value) if name == LABEL else value for name, value in labels.items()}

    def _row(self, text: str) -> Mapping[str, Tensor]:
        """Returns the embeddings of one text."""
        if not text or text in self._rows:
            place = self._rows.get(text, len(self.bank.prompts))
            return {name: tensor[place] for name, tensor in self.bank.embeddings.items()}
        if text not in self._made:
            self._made[text] = self._encode(text)
        return self._made[text]

    def _encode(self, text: str) -> Mapping[str, Tensor]:
        encoded = self.encoder.encode([text])
        if cut := int(encoded.num_cut[0]):
            warnings.warn(
                f"{_shown(text)} has {cut} tokens more than the model takes ({self.encoder.max_tokens}): the end "
                "of it is left out",
                TextWarning,
                stacklevel=2,
            )
        found = {"tokens": encoded.tokens[0], "token_mask": encoded.token_mask[0], "pooled": encoded.pooled[0]}
        self._warn_if_unfamiliar(text, encoded.pooled)
        return {name: found[name] for name in self.bank.embeddings}

    @cached_property
    def encoder(self) -> TextEncoder:
        """The model's text encoder; ValueError where it is not there, or is another one than the model's."""
        place, known = self.place or self.settings["encoder"], self.bank.encoder or {}
        remedy = "give its folder: --text-encoder FOLDER, load(…, text_encoder=FOLDER)"
        try:
            digest = find_digest(place)  # before anything of it is loaded
            if known.get("digest") != digest:
                raise ValueError(
                    f"{place} is not the one that the model was trained with (its digest is {digest[:12]}…, the "
                    f"model's {str(known.get('digest'))[:12]}…)"
                )
            return open_encoder(place, max_tokens=self.settings["max_tokens"])
        except ValueError as error:
            raise ValueError(
                f"this text is not among the {len(self.bank.prompts)} that {self.source.name} carries, and its text "
                f"encoder {self.settings['encoder']} cannot be used: {error}; {remedy}"
            ) from error

    def _warn_if_unfamiliar(self, text: str, pooled: Tensor) -> None:
        if "pooled" not in self.bank.embeddings or len(self.bank.prompts) < 2:
            return
        similarity = float((self._known @ nnf.normalize(pooled.float(), dim=-1)[0]).max())
        if similarity < self._least_similarity:
            warnings.warn(
                f"{_shown(text)} is unlike all texts of the training data (similarity {similarity:.2f} to the "
                f"nearest; {1 - RARE:.0%} of these have a neighbour at {self._least_similarity:.2f} or more)",
                TextWarning,
                stacklevel=2,
            )

    @cached_property
    def _known(self) -> Tensor:
        return nnf.normalize(self.bank.embeddings["pooled"][: len(self.bank.prompts)].float(), dim=-1)

    @cached_property
    def _least_similarity(self) -> float:
        """The similarity to the nearest other text that all but ``RARE`` of the model's texts have."""
        known = self._known
        compared = known[:: -(-len(known) // MOST_COMPARED)]
        similarity = compared @ known.T
        places = torch.arange(0, len(known), -(-len(known) // MOST_COMPARED))
        similarity[torch.arange(len(compared)), places] = -1
        return float(similarity.max(1).values.quantile(RARE))


def _shown(text: str) -> str:
    """Returns a text for a warning, its beginning alone where it is long."""
    return repr(printable(text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}…"))


def _pad(tensor: Tensor, name: str, length: int) -> Tensor:
    """Returns tokens or their mask with zeros up to a length; a pooled vector as it is."""
    if name == "pooled":
        return tensor
    return nnf.pad(tensor, (0, 0) * (tensor.ndim - 1) + (0, length - tensor.shape[0]))

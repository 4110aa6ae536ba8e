"""The kinds of text models that are supported: their classes in transformers and how a text is pooled."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scm_media.reading import read_json
from scm_media.text.sources import CONFIG, POOLING

Pool = Callable[[Any, Tensor], Tensor]
"""Returns the pooled vectors ``(B, p)`` for a model's output and the mask ``(B, L)`` of its tokens."""

MODULES = ("Transformer", "Pooling", "Normalize")
"""The modules of sentence-transformers that are computed here."""
DEFAULT_LENGTH = 512
"""The tokens of a text where neither model nor tokenizer has a limit, as T5 was trained."""


@dataclass(frozen=True)
class Kind:
    """A kind of text model.

    class_name: its class in transformers. arguments: more arguments of it. padding_positions: positions start after
    the padding token's index, as in RoBERTa.
    """

    class_name: str
    arguments: Mapping[str, Any]
    padding_positions: bool = False

    def max_positions(self, config: Any) -> int | None:
        """Returns the number of tokens that a model has positions for; None where positions are relative."""
        num = getattr(config, "max_position_embeddings", None)
        if num is None or self.class_name in RELATIVE:
            return None
        return num - config.pad_token_id - 1 if self.padding_positions else num


CLIP, CLIP_PROJECTED = Kind("CLIPTextModel", {}), Kind("CLIPTextModelWithProjection", {})
WITHOUT_POOLER = {"add_pooling_layer": False}
RELATIVE = ("T5EncoderModel", "UMT5EncoderModel")
SENTENCES = {
    "bert": Kind("BertModel", WITHOUT_POOLER),
    "mpnet": Kind("MPNetModel", WITHOUT_POOLER, padding_positions=True),
    "roberta": Kind("RobertaModel", WITHOUT_POOLER, padding_positions=True),
    "xlm-roberta": Kind("XLMRobertaModel", WITHOUT_POOLER, padding_positions=True),
}
KINDS: Mapping[str, Kind] = {
    "clip": CLIP_PROJECTED,
    "clip_text_model": CLIP,
    "t5": Kind("T5EncoderModel", {}),
    "umt5": Kind("UMT5EncoderModel", {}),
    **SENTENCES,
}
"""The supported kinds by ``model_type`` of the model's config.json."""


def read_kind(folder: Path) -> tuple[str, Kind]:
    """Returns the model type of a folder and its kind. Raises ValueError for a type that is not supported."""
    config = read_json(folder / CONFIG)
    model_type = config.get("model_type") if isinstance(config, dict) else None
    if not isinstance(model_type, str) or model_type not in KINDS:
        raise ValueError(
            f"{folder}: model_type {model_type!r:.80} of {CONFIG} is no supported text model; supported are "
            + ", ".join(KINDS)
        )
    if model_type == "clip_text_model" and CLIP_PROJECTED.class_name in (config.get("architectures") or []):
        return model_type, CLIP_PROJECTED
    return model_type, KINDS[model_type]


def read_widths(folder: Path) -> dict[str, int]:
    """Returns the widths of the embeddings of a folder's model, ``tokens`` and ``pooled``, from its config.json alone.

    Raises ValueError for a type that is not supported, and where the file does not say.
    """
    model_type, kind = read_kind(folder)
    config = read_json(folder / CONFIG)
    own = config.get("text_config") if model_type == "clip" else config
    own = own if isinstance(own, dict) else {}
    width = own.get("d_model" if kind.class_name in RELATIVE else "hidden_size")
    pooled = config.get("projection_dim") if kind is CLIP_PROJECTED else width
    if not isinstance(width, int) or not isinstance(pooled, int):
        raise ValueError(f"{folder / CONFIG} does not say how wide its embeddings are; copy the model again")
    return {"tokens": width, "pooled": pooled}


def read_pool(folder: Path, model_type: str) -> Pool:
    """Returns how a folder's model pools tokens: CLIP by its own output, T5 by the mean, others as sentence encoders.

    Raises ValueError for a sentence encoder whose pooling is not supported.
    """
    if model_type.startswith("clip"):
        return _pool_clip
    if model_type not in SENTENCES:
        return _mean
    mode = _read_pooling_mode(folder)
    return lambda output, mask: torch.nn.functional.normalize(POOLINGS[mode](output, mask), dim=-1)


def read_max_length(folder: Path, limit: int | None, tokenizer_limit: int) -> int:
    """Returns the number of tokens of a text where the user names none: the smallest of what the files say.

    limit: what the model has positions for. tokenizer_limit: ``model_max_length``, which is huge where there is none.
    """
    file = folder / "sentence_bert_config.json"
    found = read_json(file) if file.is_file() else None
    named = found.get("max_seq_length") if isinstance(found, dict) else None
    wanted = [each for each in (named, limit, tokenizer_limit) if isinstance(each, int) and 0 < each < 1 << 20]
    return min(wanted, default=DEFAULT_LENGTH)


def _read_pooling_mode(folder: Path) -> str:
    modules = read_json(folder / "modules.json") if (folder / "modules.json").is_file() else []
    names = [str(each.get("type")).rsplit(".", 1)[-1] for each in modules if isinstance(each, dict)]
    if others := [name for name in names if name not in MODULES]:
        raise ValueError(
            f"{folder}/modules.json: {', '.join(others)} is not supported, expected {', '.join(MODULES)} alone; choose "
            "another sentence encoder"
        )
    if not (folder / POOLING).is_file():
        return "mean"
    found = read_json(folder / POOLING)
    config = found if isinstance(found, dict) else {}
    named = config.get("pooling_mode")
    flags = [key for key, on in config.items() if key.startswith("pooling_mode_") and on is True]
    modes = [named] if isinstance(named, str) else [FLAGS.get(flag, flag) for flag in flags]
    if len(modes) != 1 or modes[0] not in POOLINGS:
        raise ValueError(
            f"{folder / POOLING}: pooling is {' and '.join(modes) or 'not said'}, expected one of "
            f"{', '.join(POOLINGS)}; choose another sentence encoder"
        )
    return modes[0]


def _pool_clip(output: Any, mask: Tensor) -> Tensor:
    projected: Tensor | None = getattr(output, "text_embeds", None)
    return output.pooler_output if projected is None else projected


def _mean(output: Any, mask: Tensor) -> Tensor:
    weight = mask.unsqueeze(-1)
    return (output.last_hidden_state.float() * weight).sum(1) / weight.sum(1)


def _cls(output: Any, mask: Tensor) -> Tensor:
    return output.last_hidden_state[:, 0].float()


def _max(output: Any, mask: Tensor) -> Tensor:
    return output.last_hidden_state.float().masked_fill(~mask.unsqueeze(-1), -torch.inf).amax(1)


POOLINGS: Mapping[str, Pool] = {"mean": _mean, "cls": _cls, "max": _max}
FLAGS = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
}
"""The keys of 1_Pooling/config.json by pooling."""

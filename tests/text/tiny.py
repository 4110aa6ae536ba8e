"""Tiny text models with random weights, and a tokenizer of whole words, as transformers saves them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import TemplateProcessing

SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")
WORDS = ("a", "dog", "barks", "in", "the", "rain", "while", "bells", "ring", "far", "away")
NUM_POSITIONS = 16
SMALL = {
    "vocab_size": len(SPECIAL) + len(WORDS),
    "hidden_size": 8,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": NUM_POSITIONS,
    "bos_token_id": 0,
    "pad_token_id": 1,
    "eos_token_id": 2,
}
SMALL_T5 = {
    **{"vocab_size": SMALL["vocab_size"], "d_model": 8, "d_kv": 4, "d_ff": 16, "num_layers": 2, "num_heads": 2},
    **{"pad_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1},
}
TEXT = {**SMALL, "projection_dim": 6}
VISION = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
IMAGES = {"image_size": 8, "patch_size": 4}

CLASSES = {
    "clip_text": ("CLIPTextModel", "CLIPTextConfig", TEXT),
    "clip_projected": ("CLIPTextModelWithProjection", "CLIPTextConfig", TEXT),
    "clip": (
        "CLIPModel",
        "CLIPConfig",
        {"text_config": SMALL, "vision_config": {**VISION, **IMAGES}, "projection_dim": 6},
    ),
    "t5": ("T5EncoderModel", "T5Config", SMALL_T5),
    "umt5": ("UMT5EncoderModel", "UMT5Config", SMALL_T5),
    "bert": ("BertModel", "BertConfig", SMALL),
    "mpnet": ("MPNetModel", "MPNetConfig", SMALL),
    "roberta": ("RobertaModel", "RobertaConfig", SMALL),
    "xlm-roberta": ("XLMRobertaModel", "XLMRobertaConfig", SMALL),
}
"""Class, configuration and its arguments by kind."""


def save_model(kind: str, folder: Path, **changes: Any) -> Any:
    """Saves a model of a kind with a tokenizer, and returns it in eval mode."""
    class_name, config_name, arguments = CLASSES[kind]
    config = getattr(transformers, config_name)(**{**arguments, **changes})
    model = getattr(transformers, class_name)(config).eval()
    with torch.no_grad():  # initial weights are so small that hardly anything depends on the words
        for name, parameter in model.named_parameters():
            if "norm" not in name.lower():
                parameter.normal_(0.0, 0.5)
    model.save_pretrained(folder)
    make_tokenizer(kind).save_pretrained(folder)
    return model


def make_tokenizer(kind: str, special: bool = True) -> transformers.PreTrainedTokenizerFast:
    """Returns a tokenizer of words, which surrounds a text by special tokens as the kind's do."""
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate((*SPECIAL, *WORDS))}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    if special:
        template = "$A </s>" if "t5" in kind else "<s> $A </s>"
        tokenizer.post_processor = TemplateProcessing(single=template, special_tokens=[("<s>", 0), ("</s>", 2)])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        **{"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"},
    )

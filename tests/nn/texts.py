"""Texts for three samples: one padded, one dropped, one whole."""

from __future__ import annotations

from dataclasses import replace

import torch

from tests.nn.backbones import clips, fresh_clips, fresh_transformer, fresh_unet, inputs, transformer, unet

WIDTHS = {"tokens": 5, "pooled": 7}
FRESH = {transformer: fresh_transformer, unet: fresh_unet, clips: fresh_clips}
"""The makers of networks whose every weight counts, and of those with the weights of their seeds."""
MAKERS = list(FRESH)
WAYS = {"tokens": ("tokens",), "pooled": ("pooled",), "both": ("tokens", "pooled")}
"""The ways in which a backbone takes text, by the name of a test."""


def widths(way):
    return {name: WIDTHS[name] for name in WAYS[way]}


def with_text(cond, way="both", dropped=(1,)):
    """Conditioning with three texts of up to four tokens, some of them dropped."""
    generator = torch.Generator().manual_seed(2)
    made = {"tokens": torch.randn(3, 4, 5, generator=generator), "pooled": torch.randn(3, 7, generator=generator)}
    mask = torch.tensor([[True, True, False, False], [True] * 4, [True] * 4])
    if way == "pooled":
        mask = torch.ones(3, 1, dtype=torch.bool)
    mask[list(dropped)] = False
    return replace(cond, **{name: made[name].double() for name in WAYS[way]}, token_mask=mask)


def rank_of(make):
    return 3 if make is clips else 2


def called(make, way="both", **options):
    """A network with text, and what it is called with."""
    rank = rank_of(make)
    u, t, cond = inputs(rank)
    return make(rank, text=widths(way), **options), u, t, with_text(cond, way)

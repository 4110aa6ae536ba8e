"""Texts for three samples: one padded, one dropped, one whole."""

from __future__ import annotations

from dataclasses import replace

import torch

WIDTHS = {"tokens": 5, "pooled": 7}
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

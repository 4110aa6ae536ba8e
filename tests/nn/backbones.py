"""Small networks of each kind, and what they are called with."""

from __future__ import annotations

import torch

from modalities.video.backbone import SpaceTimeTransformer
from scm_media.conditioning import NO_LABEL, Conditioning
from scm_media.nn.dual import DualTensor
from scm_media.nn.transformer import Transformer
from scm_media.nn.unet import UNet

LATENTS = {1: (2, 8), 2: (2, 4, 6), 3: (2, 4, 2, 6)}
RANKS = list(LATENTS)
LABELS = {"class": 4, "pitch": 0}


def fresh_transformer(rank, **options):
    """A transformer with the weights of its seed, whose F is 0."""
    torch.manual_seed(0)
    return Transformer(2, rank, patch=2, width=24, depth=2, num_heads=2, labels=LABELS, **options)


def transformer(rank, dtype=torch.float64, **options):
    """A transformer whose every weight counts."""
    net = fresh_transformer(rank, **options)
    for parameter in net.parameters():
        parameter.data = 0.2 * torch.randn(parameter.shape) + (0.5 if parameter.ndim == 1 else 0.0)
    return net.to(dtype)


def fresh_clips(rank, attention="factorised", **options):
    """A space-time transformer with the weights of its seed, whose F is 0; rank is 3."""
    torch.manual_seed(0)
    return SpaceTimeTransformer(2, (1, 2, 2), 24, 2, 2, attention, labels=LABELS, **options)


def clips(rank, dtype=torch.float64, **options):
    """A space-time transformer whose every weight counts."""
    net = fresh_clips(rank, **options)
    for parameter in net.parameters():
        parameter.data = 0.2 * torch.randn(parameter.shape) + (0.5 if parameter.ndim == 1 else 0.0)
    return net.to(dtype)


def fresh_unet(rank, **options):
    """A U-Net with the weights of its seed, whose F is 0."""
    torch.manual_seed(0)
    return UNet(2, rank, 8, (1, 2), 1, (1,), head_width=8, labels=LABELS, **options)


def unet(rank, dtype=torch.float64, **options):
    """A U-Net whose every weight counts."""
    net = fresh_unet(rank, **options)
    for parameter in net.parameters():
        parameter.data += 0.3 * torch.randn(parameter.shape) + (0.5 if parameter.ndim == 0 else 0.0)
    return net.to(dtype)


def inputs(rank):
    """Pairs u and t for three clips in float64, and labels of which some are not given."""
    generator = torch.Generator().manual_seed(1)
    u, du = (torch.randn(3, *LATENTS[rank], generator=generator, dtype=torch.float64) for _ in range(2))
    t, dt = torch.rand(2, 3, generator=generator, dtype=torch.float64)
    pitch = torch.tensor([0.2, torch.nan, 1.0], dtype=torch.float64)
    return (
        DualTensor(u, du),
        DualTensor(t, dt),
        Conditioning(labels={"class": torch.tensor([0, 3, NO_LABEL]), "pitch": pitch}),
    )


def in_float32(u, t, cond):
    """The same inputs, narrow."""
    u, t = (DualTensor(x.value.float(), x.tangent.float()) for x in (u, t))
    return u, t, Conditioning(labels={"class": cond.labels["class"], "pitch": cond.labels["pitch"].float()})

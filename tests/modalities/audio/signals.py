"""Waveforms that front ends are tested on, and how much of one comes back."""

from __future__ import annotations

import math

import torch
from torch import Tensor

RATE = 22050


def noise(num: int = 8, length: int = 8192, level: float = 0.2, seed: int = 0) -> Tensor:
    """White noise ``(num, 1, length)``, within [-1, 1]."""
    generator = torch.Generator().manual_seed(seed)
    return (level * torch.randn(num, 1, length, generator=generator)).clamp(-1, 1)


def tones(num: int = 8, length: int = 8192) -> Tensor:
    """Steady tones ``(num, 1, length)`` from 110 Hz on, a fifth apart, of amplitude 0.9."""
    time = torch.arange(length, dtype=torch.float64) / RATE
    pitches = 110 * 1.5 ** torch.arange(num, dtype=torch.float64)[:, None, None]
    return (0.9 * torch.sin(2 * math.pi * pitches * time)).float()


def notes(num: int = 8, length: int = 8192) -> Tensor:
    """Struck notes ``(num, 1, length)`` of eight partials that fade, the last third silence."""
    time = torch.arange(length, dtype=torch.float64) / RATE
    pitches = 110 * 2 ** (torch.arange(num, dtype=torch.float64)[:, None, None] / 3)
    partials = torch.arange(1, 9, dtype=torch.float64)[:, None, None, None]
    waves = torch.sin(2 * math.pi * partials * pitches * time) * torch.exp(-8 * partials * time) / partials
    waves = waves.sum(0) * (partials[0] * 0 + torch.linspace(0.1, 0.4, num, dtype=torch.float64)[:, None, None])
    waves[..., 2 * length // 3 :] = 0
    return waves.clamp(-1, 1).float()


def snr(signal: Tensor, made: Tensor) -> float:
    """Signal to noise ratio in dB, of the worst waveform of a batch."""
    error = (made - signal).double().square().flatten(1).sum(1)
    return (10 * (signal.double().square().flatten(1).sum(1) / error).log10()).min().item()

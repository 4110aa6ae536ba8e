"""Finds phases for magnitude spectra by following partials from frame to frame."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

_SILENT = 1e-8
"""The least magnitude before the logarithm."""


def peak_phases(magnitudes: Tensor, hop: int) -> Tensor:
    """Returns phases, as complex numbers of unit size, for magnitudes ``(*, K, window / 2 + 1)`` of Hann's window.

    Each peak of a frame is a partial. The vertex of a parabola through the logarithms of the three bins around it gives
    its frequency; its phase is that of the same bin one frame earlier plus 2π · frequency · hop. All bins of a peak,
    down to the valleys beside it, share its phase at the middle of the window (Beauregard, Harish & Wyse 2015, "Single
    pass spectrogram inversion", section 3). hop: in samples. No gradient passes: the choice of peaks has none.
    """
    level = magnitudes.detach().clamp(min=_SILENT).log()
    bins = torch.arange(level.shape[-1], device=level.device)
    below, above = _neighbours(level)
    peak, valley = (level >= below) & (level > above), (level <= below) & (level < above)
    owner = _owners(peak, valley, bins)
    bend = (below - 2 * level + above).clamp(max=-1e-6)
    vertex = torch.where(below.isfinite() & above.isfinite(), (below - above) / (2 * bend), 0).clamp(-0.5, 0.5)
    window = 2 * (level.shape[-1] - 1)
    turn = (2 * math.pi * hop / window) * (bins + vertex).gather(-1, owner)
    phase, frames = torch.zeros_like(level[..., 0, :]), []
    for frame in range(level.shape[-2]):
        phase = torch.remainder(phase.gather(-1, owner[..., frame, :]) + turn[..., frame, :], 2 * math.pi)
        frames.append(phase)
    # From the middle of the window to its beginning: half a window at each bin's own frequency.
    total = torch.stack(frames, -2) - math.pi * (bins % 2)
    return torch.polar(torch.ones_like(total), total)


def _neighbours(level: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the levels of the bins below and above; minus infinity beyond the ends."""
    wide = functional.pad(level, (1, 1), value=-math.inf)
    return wide[..., :-2], wide[..., 2:]


def _owners(peak: Tensor, valley: Tensor, bins: Tensor) -> Tensor:
    """Returns the index of the peak uphill from each bin; the next one for a valley, the bin itself without a peak."""
    none = len(bins)
    last_peak = torch.where(peak, bins, -1).cummax(-1).values
    last_valley = torch.where(valley, bins, -1).cummax(-1).values
    next_peak = torch.where(peak, bins, none).flip(-1).cummin(-1).values.flip(-1)
    descending = (last_peak > last_valley) | (next_peak == none)
    owner = torch.where(descending, last_peak, next_peak)
    return torch.where((owner < 0) | (owner == none), bins, owner)

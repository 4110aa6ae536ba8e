"""Phases for spectra of which only the magnitudes are known: steady partials go on turning from frame to frame."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

_SILENT = 1e-8
"""Magnitude below which bins are alike: a logarithm needs one."""


def peak_phases(magnitudes: Tensor, hop: int) -> Tensor:
    """Complex numbers of unit size ``(*, K, window / 2 + 1)``: phases for magnitudes of that shape, of Hann's window.

    Each peak of a frame is taken for a partial, its frequency for the vertex of a parabola through the logarithms
    of the three bins about it, and its phase for what that of the same bin was a frame earlier, turned on by
    2π · frequency · hop. All bins of a peak, down to the valleys beside it, have its phase at the middle of the
    window (Beauregard, Harish & Wyse 2015, "Single pass spectrogram inversion", section 3). hop: in samples.
    No gradient passes: which bin is a peak has none.
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
    """What stands one bin below and one above; minus infinity beyond the ends."""
    wide = functional.pad(level, (1, 1), value=-math.inf)
    return wide[..., :-2], wide[..., 2:]


def _owners(peak: Tensor, valley: Tensor, bins: Tensor) -> Tensor:
    """The peak that each bin belongs to: uphill from it, a valley to the peak above; the bin itself without any."""
    none = len(bins)
    last_peak = torch.where(peak, bins, -1).cummax(-1).values
    last_valley = torch.where(valley, bins, -1).cummax(-1).values
    next_peak = torch.where(peak, bins, none).flip(-1).cummin(-1).values.flip(-1)
    descending = (last_peak > last_valley) | (next_peak == none)
    owner = torch.where(descending, last_peak, next_peak)
    return torch.where((owner < 0) | (owner == none), bins, owner)

"""The pitch of sounds by YIN, fast enough for thousands of them."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

LOWEST_HERTZ, HIGHEST_HERTZ = 26.0, 4_400.0
"""The range of the piano's keys, widened by half a semitone."""
APERIODICITY = 0.1
"""The part of a frame's power, as YIN normalises it, that may not repeat with the period of a voiced frame."""
FRAME_SECONDS = 0.023
"""The time from one frame to the next."""
MULTIPLES = (2, 4, 8)
"""Multiples of the period by which it is refined, where the frame has them: periods of few samples need it."""
QUIETEST = 1e-4
"""The root mean square of a frame below which it is silent (-80 dBFS)."""
MIN_VOICED = 3
"""Frames with a pitch that a sound has at least, if it has one."""


def median_pitch(wave: Tensor, rate: int) -> float:
    """Returns the pitch of a mono sound ``(T,)``, the median MIDI number over its frames that have one.

    It is NaN where fewer than ``MIN_VOICED`` do.
    """
    pitches = estimate_pitches(wave, rate)
    voiced = pitches[~pitches.isnan()]
    return float(voiced.median()) if len(voiced) >= MIN_VOICED else math.nan


def estimate_pitches(wave: Tensor, rate: int) -> Tensor:
    """Returns the pitch of each frame of a mono sound ``(T,)`` as a MIDI number with a fraction, ``(frames,)``.

    It is NaN where a frame is silent or not periodic. A frame spans two periods of ``LOWEST_HERTZ``; a shorter sound
    has none. The period is the shortest lag τ at which the normalised difference d'(τ) has a minimum below
    ``APERIODICITY``, refined by parabolas through d(τ) there and at multiples of τ (de Cheveigné & Kawahara 2002,
    "YIN, a fundamental frequency estimator for speech and music", equations 6 and 8, sections II.D and II.E).
    """
    longest = int(rate / LOWEST_HERTZ) + 2
    shortest = max(2, int(rate / HIGHEST_HERTZ))
    if wave.shape[0] < 2 * longest:
        return wave.new_empty(0)
    frames = wave.double().unfold(0, 2 * longest, max(1, round(FRAME_SECONDS * rate)))
    difference = _difference(frames, longest)
    lags = torch.arange(1, longest + 1, device=wave.device)
    normalised = difference * lags / difference.cumsum(1)
    before, here, after = normalised[:, :-2], normalised[:, 1:-1], normalised[:, 2:]
    # Between lags a dip is deeper than at them, by a parabola: with few samples a period that decides.
    depth = here - (before - after).square() / (8 * (before - 2 * here + after).clamp(min=1e-12))
    dips = (here <= before) & (here < after) & (depth < APERIODICITY)
    dips[:, : shortest - 2] = False
    period = _refine(difference, dips.float().argmax(1) + 2.0, 1)
    for multiple in MULTIPLES:
        period = _refine(difference, period, multiple)
    voiced = dips.any(1) & (frames.square().mean(1).sqrt() > QUIETEST)
    return torch.where(voiced, 69 + 12 * torch.log2(rate / period / 440), torch.nan).float()


def _difference(frames: Tensor, longest: int) -> Tensor:
    """Returns d(τ) for τ from 1 to ``longest`` of frames ``(N, 2 · longest)``, ``(N, longest)``."""
    size = 2 ** (2 * longest - 1).bit_length()
    start = torch.fft.rfft(frames[:, :longest], size)
    # The window of ``longest`` samples reaches up to the frame's end: nothing wraps around.
    product = torch.fft.irfft(torch.fft.rfft(frames, size) * start.conj(), size)[:, : longest + 1]
    sums = functional.pad(frames.square().cumsum(1), (1, 0))
    power = sums[:, longest:] - sums[:, : longest + 1]
    return (power[:, :1] + power - 2 * product)[:, 1:].clamp(min=0)


def _refine(difference: Tensor, period: Tensor, multiple: int) -> Tensor:
    """Returns periods ``(N,)`` from the minimum of d(τ) ``(N, longest)`` next to a multiple of the period.

    Periods whose multiple is too long stay as they are, and so do those next to which there is no minimum.
    """
    near = (multiple * period).round().long()[:, None] + torch.arange(-1, 2, device=period.device)
    fits = near[:, -1] < difference.shape[1]
    near = near.clamp(2, difference.shape[1] - 1)
    centre = near.gather(1, difference.gather(1, near - 1).argmin(1, keepdim=True))
    low, middle, high = (difference.gather(1, centre + step)[:, 0] for step in (-2, -1, 0))
    bend = low - 2 * middle + high
    found = (centre[:, 0] + (low - high) / (2 * bend)) / multiple
    return torch.where(fits & (middle <= low) & (middle <= high) & (bend > 0), found, period)

"""Peak, loudness by ITU-R BS.1770, and silence at the ends of a sound."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional
from torchaudio.functional import lfilter

NORMALISATIONS = {"peak": -1.0, "loudness": -23.0}
"""Kind of normalisation to its default level: dBFS of the largest sample, or LUFS (EBU R 128's target)."""
MAX_GAIN = 40.0
"""The largest gain of a normalisation in dB: noise in a quiet recording stays quiet."""

BLOCK, OVERLAP = 0.4, 0.75
"""Seconds of a gating block, and its overlap with the next (BS.1770-4, annex 1)."""
ABSOLUTE_GATE, RELATIVE_GATE = -70.0, -10.0
OFFSET = -0.691
"""dB that make a 997 Hz sine of full scale in one channel −3.01 LUFS (BS.1770-4, equation 2)."""

FRAME, HOP = 2048, 512
"""Samples of a frame in which silence is looked for, and from one frame to the next, as in ``librosa.effects.trim``."""


def limit_peak(sample: Tensor) -> tuple[Tensor, float]:
    """Returns the sample, scaled down as a whole to a peak of 1 if its peak is higher, and its former peak."""
    peak = sample.abs().max().item() if sample.numel() else 0.0
    return (sample / peak if peak > 1 else sample), peak


def limit_peaks(samples: Tensor) -> Tensor:
    """Returns samples ``(B, C, T)``, each scaled down as a whole to a peak of 1 if its peak is higher: none is cut."""
    return samples / samples.abs().amax((1, 2), keepdim=True).clamp(min=1)


def normalise_level(sample: Tensor, rate: int, kind: str, level: float) -> Tensor:
    """Returns the sample ``(C, T)`` at a level in dBFS (kind "peak") or LUFS ("loudness").

    The gain is at most ``MAX_GAIN``, and the peak stays within 1. Silence stays silence.
    """
    peak = sample.abs().max().item()
    if peak == 0:
        return sample
    current = 20 * math.log10(peak) if kind == "peak" else loudness(sample, rate)
    if current == -math.inf:
        return sample
    gain = 10 ** (min(level - current, MAX_GAIN) / 20)
    return sample * min(gain, 1 / peak)


def amplify(sample: Tensor, decibels: float, uniform: float) -> Tensor:
    """Returns the sample ``(C, T)`` with a gain from −decibels (uniform 0) to decibels (uniform 1), in dB.

    The largest gain is the one that brings the peak to 1, where that is less than ``decibels``.
    """
    peak = sample.abs().max().item() if sample.numel() else 0.0
    if peak == 0:
        return sample
    highest = min(decibels, -20 * math.log10(peak))
    gain = 10 ** ((-decibels + (highest + decibels) * uniform) / 20)
    return (sample * gain).clamp(-1, 1)  # a peak of 1 may be rounded up


def loudness(sample: Tensor, rate: int) -> float:
    """Returns the integrated loudness in LUFS of one or two channels ``(C, T)``; −inf for silence.

    ITU-R BS.1770-4, annex 1: channels are K-weighted, their mean squares added in blocks of 400 ms that overlap by
    75 %. Blocks below −70 LUFS, and then those 10 LU below the mean of the rest, are left out. A shorter sound is one
    block. (``torchaudio.functional.loudness`` clips the filtered sound at full scale and refuses less than a block.)
    """
    weighted = sample.double()
    for zeros, poles in k_weighting(rate):
        weighted = lfilter(weighted, poles, zeros, clamp=False)
    size = min(round(BLOCK * rate), weighted.shape[-1])
    step = max(1, round(size * (1 - OVERLAP)))
    power = weighted.unfold(-1, size, step).square().mean(-1).sum(0)
    loud = power[_to_lufs(power) > ABSOLUTE_GATE]
    if len(loud):
        loud = loud[_to_lufs(loud) > _to_lufs(loud.mean()) + RELATIVE_GATE]
    return _to_lufs(loud.mean()).item() if len(loud) else -math.inf


def _to_lufs(power: Tensor) -> Tensor:
    return OFFSET + 10 * power.log10()


def k_weighting(rate: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields numerator and denominator ``(3,)`` of both filters of the K-weighting, in float64.

    BS.1770-4 gives coefficients at 48 kHz. These come from the analogue filters behind them (De Man 2018, "Evaluation
    of implementations of the EBU R 128 loudness measurement", AES 145): a shelf of +4 dB above 1682 Hz and a high-pass
    at 38 Hz, brought to any rate by the bilinear transform with the frequency warped: tan(π f / rate).
    """
    warped, quality = math.tan(math.pi * 1681.974450955533 / rate), 0.7071752369554196
    high = 10 ** (3.999843853973347 / 20)
    middle = high**0.4996667741545416
    bandwidth = middle * warped / quality
    shelf = high + bandwidth + warped**2, 2 * (warped**2 - high), high - bandwidth + warped**2
    yield torch.tensor(shelf, dtype=torch.float64), _denominator(warped, quality)
    poles = _denominator(math.tan(math.pi * 38.13547087602444 / rate), 0.5003270373238773)
    # The standard's numerator is 1, −2, 1 although its denominator is divided by the first coefficient.
    yield poles[0] * torch.tensor([1.0, -2.0, 1.0], dtype=torch.float64), poles


def _denominator(warped: float, quality: float) -> Tensor:
    terms = 1 + warped / quality + warped**2, 2 * (warped**2 - 1), 1 - warped / quality + warped**2
    return torch.tensor(terms, dtype=torch.float64)


def frame_power(sample: Tensor) -> Tensor:
    """Returns the mean squares ``(n,)`` of the loudest channel of ``(C, T)``, of a ``FRAME`` around each ``HOP``."""
    return functional.avg_pool1d(sample.square(), FRAME, HOP, padding=FRAME // 2).amax(0)


def find_sound(sample: Tensor, decibels: float) -> tuple[int, int]:
    """Returns the first and last + 1 sample of ``(C, T)`` without the silence at its ends.

    Silence is more than so many dB below the loudest frame, as in ``librosa.effects.trim``. A sound that is silent
    throughout is returned whole.
    """
    power = frame_power(sample)
    loud = (power > power.max() * 10 ** (-decibels / 10)).nonzero().flatten()
    if not len(loud):
        return 0, sample.shape[-1]
    return int(loud[0]) * HOP, min(sample.shape[-1], (int(loud[-1]) + 1) * HOP)

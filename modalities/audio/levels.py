"""How loud a sound is: peak, loudness as broadcasters measure it, and where it is silent."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

NORMALISATIONS = {"peak": -1.0, "loudness": -23.0}
"""Kind to the level it aims at where a recipe does not say: dBFS of the largest sample; LUFS (EBU R 128's target)."""
MOST_GAIN = 40.0
"""dB that a sound is raised by at most, so that hiss stays hiss."""

BLOCK, OVERLAP = 0.4, 0.75
"""Seconds of a gating block, and its overlap with the next (BS.1770-4, annex 1)."""
ABSOLUTE_GATE, RELATIVE_GATE = -70.0, -10.0
OFFSET = -0.691
"""dB that make a 997 Hz sine of full scale in one channel −3.01 LUFS (BS.1770-4, equation 2)."""

FRAME, HOP = 2048, 512
"""Samples in which silence is looked for at once, and from one look to the next; those of ``librosa.effects.trim``."""


def limited(sample: Tensor) -> tuple[Tensor, float]:
    """The sample turned down as a whole where its peak is above 1, so that nothing is clipped or wrapped; its peak."""
    peak = sample.abs().max().item() if sample.numel() else 0.0
    return (sample / peak if peak > 1 else sample), peak


def normalised(sample: Tensor, rate: int, kind: str, level: float) -> Tensor:
    """The sample ``(C, T)`` at a level: dBFS of its peak, or LUFS. Its peak stays within 1; silence stays silence."""
    peak = sample.abs().max().item()
    if peak == 0:
        return sample
    is_now = 20 * math.log10(peak) if kind == "peak" else loudness(sample, rate)
    if is_now == -math.inf:
        return sample
    gain = 10 ** (min(level - is_now, MOST_GAIN) / 20)
    return sample * min(gain, 1 / peak)


def loudness(sample: Tensor, rate: int) -> float:
    """Integrated loudness of ``(C, T)``, one or two channels, in LUFS; −inf for silence.

    ITU-R BS.1770-4, annex 1: channels are K-weighted, their mean squares added in blocks of 400 ms that overlap by
    75 %, blocks below −70 LUFS and then those 10 LU below the rest's mean are left out. What is shorter than a block
    is one block.
    """
    weighted = _k_weighted(sample.double(), rate)
    size = min(round(BLOCK * rate), weighted.shape[-1])
    step = max(1, round(size * (1 - OVERLAP)))
    power = weighted.unfold(-1, size, step).square().mean(-1).sum(0)
    loud = power[_decibels(power) > ABSOLUTE_GATE]
    if len(loud):
        loud = loud[_decibels(loud) > _decibels(loud.mean()) + RELATIVE_GATE]
    return _decibels(loud.mean()).item() if len(loud) else -math.inf


def _decibels(power: Tensor) -> Tensor:
    return OFFSET + 10 * power.log10()


def _k_weighted(sample: Tensor, rate: int) -> Tensor:
    """``(C, T)`` through both filters of BS.1770-4, by their response: zeros after it keep its end off its start."""
    num = sample.shape[-1]
    size = 1 << (num + round(0.2 * rate)).bit_length()
    response = torch.from_numpy(_k_response(size, rate))
    return torch.fft.irfft(torch.fft.rfft(sample, size) * response, size)[..., :num]


@lru_cache(maxsize=64)
def _k_response(size: int, rate: int) -> np.ndarray:
    """The response of the K-weighting at the frequencies of an rfft of this size.

    BS.1770-4 gives coefficients at 48 kHz; these are the analogue filters that they came of (De Man 2018, "Evaluation
    of implementations of the EBU R 128 loudness measurement", AES 145): a shelf of +4 dB above 1682 Hz and a high-pass
    at 38 Hz, brought to any rate by the bilinear transform with the frequency warped: tan(π f / rate).
    """
    z = np.exp(-2j * np.pi * np.arange(size // 2 + 1) / size)
    warped, quality = math.tan(math.pi * 1681.974450955533 / rate), 0.7071752369554196
    high = 10 ** (3.999843853973347 / 20)
    middle = high**0.4996667741545416
    shelf = _section(
        z,
        (
            high + middle * warped / quality + warped**2,
            2 * (warped**2 - high),
            high - middle * warped / quality + warped**2,
        ),
        (1 + warped / quality + warped**2, 2 * (warped**2 - 1), 1 - warped / quality + warped**2),
    )
    warped, quality = math.tan(math.pi * 38.13547087602444 / rate), 0.5003270373238773
    scale = 1 + warped / quality + warped**2
    # The standard's numerator is 1, −2, 1 itself: it is not divided by the scale.
    high_pass = _section(z, (scale, -2 * scale, scale), (scale, 2 * (warped**2 - 1), 1 - warped / quality + warped**2))
    return shelf * high_pass


def _section(z: np.ndarray, zeros: tuple[float, float, float], poles: tuple[float, float, float]) -> np.ndarray:
    """(b0 + b1 z + b2 z²) / (a0 + a1 z + a2 z²), z being a delay of one sample."""
    return (zeros[0] + zeros[1] * z + zeros[2] * z**2) / (poles[0] + poles[1] * z + poles[2] * z**2)


def frame_power(sample: Tensor) -> Tensor:
    """Mean square ``(n,)`` of ``(C, T)``, of the loudest channel, in ``FRAME`` samples around every ``HOP``-th."""
    return functional.avg_pool1d(sample.square(), FRAME, HOP, padding=FRAME // 2).amax(0)


def sounding(sample: Tensor, decibels: float) -> tuple[int, int]:
    """First and last + 1 sample of ``(C, T)`` without the silence at its ends, all for what is silent altogether.

    Silence is more than so many dB below the loudest frame, as ``librosa.effects.trim`` has it.
    """
    power = frame_power(sample)
    loud = (power > power.max() * 10 ** (-decibels / 10)).nonzero().flatten()
    if not len(loud):
        return 0, sample.shape[-1]
    return int(loud[0]) * HOP, min(sample.shape[-1], (int(loud[-1]) + 1) * HOP)

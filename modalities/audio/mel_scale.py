"""Mel scales and filter banks for front ends, feature extractors and pictures."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

Scale = Literal["slaney", "htk"]


def to_mels(hertz: float | np.ndarray, scale: Scale = "slaney") -> np.ndarray:
    """Returns the mels of frequencies in Hz.

    slaney: linear to 1 kHz, logarithmic above (Slaney 1998, Auditory Toolbox). htk: 2595 log10(1 + f / 700)
    (O'Shaughnessy 1987).
    """
    hertz = np.asarray(hertz, dtype=float)
    if scale == "htk":
        return 2595 * np.log10(1 + hertz / 700)
    above = 15 + 27 * np.log(np.maximum(hertz, 1e-3) / 1000) / math.log(6.4)
    return np.where(hertz < 1000, hertz * 3 / 200, above)


def to_hertz(mels: np.ndarray, scale: Scale = "slaney") -> np.ndarray:
    """Returns the frequencies of mels in Hz; the inverse of ``to_mels``."""
    if scale == "htk":
        return 700 * (10 ** (mels / 2595) - 1)
    return np.where(mels < 15, mels * 200 / 3, 1000 * np.exp((np.maximum(mels, 15) - 15) * math.log(6.4) / 27))


def mel_filters(
    sample_rate: int,
    window: int,
    num_mels: int,
    lowest: float = 0.0,
    highest: float | None = None,
    scale: Scale = "slaney",
    unit_sum: bool = False,
) -> np.ndarray:
    """Returns triangular filters ``(num_mels, window / 2 + 1)`` over the bins of a Fourier transform, in float64.

    lowest, highest: in Hz; highest: None for half the sampling rate. unit_sum=False: the filters are those of
    ``librosa.filters.mel``, of area one per Hz, times the Hz between two bins; one that lies between two bins is zero.
    unit_sum=True: each filter sums to one and is at least as wide as a bin on each side, so that none is zero.

    torchaudio's ``melscale_fbanks`` has single precision, misplaces the bins of odd sampling rates and leaves filters
    between two bins empty; librosa's ``mel`` takes most of a second to import.
    """
    ends = to_mels(np.array([lowest, sample_rate / 2 if highest is None else highest]), scale)
    corners = to_hertz(np.linspace(*ends, num_mels + 2), scale)
    bin_width = sample_rate / window
    centres, reach = corners[1:-1, None], bin_width if unit_sum else 0
    lower, upper = np.minimum(corners[:-2, None], centres - reach), np.maximum(corners[2:, None], centres + reach)
    bins = np.linspace(0, sample_rate / 2, window // 2 + 1)
    filters = np.maximum(0, np.minimum((bins - lower) / (centres - lower), (upper - bins) / (upper - centres)))
    if unit_sum:
        return filters / filters.sum(1, keepdims=True).clip(min=1e-12)
    return filters * (2 / (upper - lower)) * bin_width

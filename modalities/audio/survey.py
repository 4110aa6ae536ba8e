"""What a look at somebody's sounds tells: which keys of a recipe fit them, and what is odd about them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from modalities.audio.reading import opened

DURATIONS = (0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0)
HIGHEST_RATE = 22050
"""Hz of a proposal at most: one may ask for more, and then needs a GPU."""
SILENCE = 1e-3
"""Peak of a clip in which there is nothing to hear (−60 dBFS)."""
SHARE_ABOVE = 1e-6
"""Of a clip's power: with less than that above some frequency, there is nothing above it (−60 dB)."""


def suggest_config(paths: Sequence[str | Path]) -> tuple[dict[str, Any], str]:
    """Keys of a recipe's ``modality`` that fit these files by their headers, and what was seen in them, in words.

    sample_rate: the median of theirs, at most 22,050 Hz. duration: the shortest of 0.25 … 4 s that the median file fits
    into; it is cropped from the start where it does, at random where it is longer than 4 s. Raises ValueError when none
    of them can be opened.
    """
    rates, lengths, channels, problem = [], [], [], ""
    for path in paths:
        try:
            with opened(path) as recording:
                rates.append(recording.rate)
                lengths.append(recording.frames / recording.rate)
                channels.append(recording.channels)
        except ValueError as error:
            problem = problem or str(error)
    if not rates:
        raise ValueError(f"none of {len(paths)} files can be decoded; {problem or 'there are none'}")
    usual = median(lengths)
    fitting = [duration for duration in DURATIONS if duration >= usual]
    keys = {
        "sample_rate": min(sorted(rates)[len(rates) // 2], HIGHEST_RATE),
        "duration": (fitting or DURATIONS[-1:])[0],
        "channels": 1,
        "crop": "start" if fitting else "random",
    }
    mono = channels.count(1)
    seen = (
        f"{len(rates)} of {len(paths)} opened files are sounds, {mono} of them mono, {min(rates)} to {max(rates)} Hz, "
        f"{min(lengths):.3g} to {max(lengths):.3g} s long (half of them at most {usual:.3g} s)"
    )
    return keys, seen


def data_warnings(samples: Sequence[Tensor], rate: int) -> list[str]:
    """What somebody who looks at data should be told of clips ``(C, T)``: silent, mono, or of a narrower band."""
    told = []
    audible = [sample for sample in samples if sample.abs().max() > SILENCE]
    if silent := len(samples) - len(audible):
        told.append(
            f"{silent} of {len(samples)} sounds that were looked at are silent (peak below -60 dBFS): modality.trim=60 "
            "cuts silence from the ends of files, modality.crop=start takes their beginning"
        )
    if not audible:
        return told
    if audible[0].shape[0] == 2 and all(bool((sample[0] == sample[1]).all()) for sample in audible):
        told.append(
            f"both channels of all {len(audible)} sounds that were looked at are the same, and the recipe is stereo: "
            "modality.channels=1 would learn half of the values"
        )
    highest = max(highest_frequency(sample, rate) for sample in audible)
    if highest < rate / 4:
        told.append(
            f"there is nothing above {highest:.0f} Hz in the {len(audible)} sounds that were looked at (less than -60 "
            f"dB), and the recipe's rate is {rate} Hz: modality.sample_rate={2 * round(highest * 1.1)} would hold them"
        )
    return told


def highest_frequency(sample: Tensor, rate: int) -> float:
    """The frequency in Hz of ``(C, T)`` above which lies less than 10⁻⁶ of its power."""
    window = torch.hann_window(sample.shape[-1])
    power = torch.fft.rfft(sample.float() * window).abs().square().sum(0).double()
    above = power.flip(0).cumsum(0).flip(0)
    places = (above > SHARE_ABOVE * above[0]).nonzero().flatten()
    return float(places[-1]) * rate / sample.shape[-1]

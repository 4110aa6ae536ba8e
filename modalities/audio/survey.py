"""Suggests settings for somebody's sounds, and warns of what is odd about them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from modalities.audio.pitch import median_pitch
from modalities.audio.reading import open_recording
from scm_media.display import span

DURATIONS = (0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0)
HIGHEST_RATE = 22050
"""The highest suggested sampling rate in Hz; more needs a GPU."""
SILENCE = 1e-3
"""Peak below which a sample is silent (−60 dBFS)."""
FRACTION_ABOVE = 1e-6
"""Fraction of a sample's power (−60 dB); a frequency with less power above it counts as the highest one."""

LEAST_RATE = 8_000
LOW_PITCH = 80.0
"""Pitches in Hz that are lower are lost by 80 mel bands."""


def suggest_config(paths: Sequence[str | Path]) -> tuple[dict[str, Any], str]:
    """Returns keys of a recipe's ``modality`` that fit these files by their headers, and a sentence about the files.

    sample_rate: the median of theirs, at most 22,050 Hz. duration: the shortest of 0.25 … 4 s that is no shorter than
    the median file; crops are random where that is longer than 4 s, else from the start. Raises ValueError when none
    of the files can be opened.
    """
    rates, lengths, channels, problem = [], [], [], ""
    for path in paths:
        try:
            with open_recording(path) as recording:
                rates.append(recording.rate)
                lengths.append(recording.frames / recording.rate)
                channels.append(recording.channels)
        except ValueError as error:
            problem = problem or str(error)
    if not rates:
        raise ValueError(
            f"none of the {len(paths)} files that were opened can be decoded as a sound; "
            f"{problem or 'there are none'}; play one to see whether it is damaged"
        )
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
        f"{len(rates)} of {len(paths)} opened files are sounds, {mono} of them mono, {span(rates)} Hz, "
        f"{span(lengths, '.3g')} s long (half of them at most {usual:.3g} s)"
    )
    return keys, seen


def data_warnings(samples: Sequence[Tensor], rate: int) -> list[str]:
    """Returns warnings about samples ``(C, T)``: silence, equal channels, a narrow band, pitches that are low."""
    warnings = []
    audible = [sample for sample in samples if sample.abs().max() > SILENCE]
    if silent := len(samples) - len(audible):
        warnings.append(
            f"{silent} of {len(samples)} sounds that were looked at are silent (peak below -60 dBFS): modality.trim=60 "
            "cuts silence from the ends of files, modality.crop=start takes their beginning"
        )
    if not audible:
        return warnings
    if audible[0].shape[0] == 2 and all(bool((sample[0] == sample[1]).all()) for sample in audible):
        warnings.append(
            f"both channels of all {len(audible)} sounds that were looked at are the same, and the recipe is stereo: "
            "modality.channels=1 would learn half of the values"
        )
    highest = max(highest_frequency(sample, rate) for sample in audible)
    if highest < rate / 4:
        warnings.append(
            f"there is nothing above {highest:.0f} Hz in the {len(audible)} sounds that were looked at (less than -60 "
            f"dB), and the recipe's rate is {rate} Hz: modality.sample_rate={2 * round(highest * 1.1)} would hold them"
        )
    pitches = [pitch for sample in audible if (pitch := estimate_pitch(sample, rate)) is not None]
    if low := [pitch for pitch in pitches if pitch < LOW_PITCH]:
        warnings.append(
            f"{len(low)} of {len(pitches)} sounds with a pitch lie below {LOW_PITCH:g} Hz, the lowest at "
            f"{min(low):.0f} Hz: a log-mel front end keeps such pitches with autoencoder.network.num_mels=128 or more"
        )
    return warnings


def highest_frequency(sample: Tensor, rate: int) -> float:
    """Returns the frequency in Hz above which ``(C, T)`` has less than ``FRACTION_ABOVE`` of its power."""
    window = torch.hann_window(sample.shape[-1])
    power = torch.fft.rfft(sample.float() * window).abs().square().sum(0).double()
    above = power.flip(0).cumsum(0).flip(0)
    bins = (above > FRACTION_ABOVE * above[0]).nonzero().flatten()
    return float(bins[-1]) * rate / sample.shape[-1]


def estimate_pitch(sample: Tensor, rate: int) -> float | None:
    """Returns the pitch in Hz of ``(C, T)`` (``pitch.median_pitch``); None where the sound holds none.

    At rates below ``LEAST_RATE`` none is told: high pitches have periods of too few samples.
    """
    if rate < LEAST_RATE:
        return None
    wave = sample.float().mean(0)
    pitch = median_pitch(wave - wave.mean(), rate)
    return None if math.isnan(pitch) else 440 * 2 ** ((pitch - 69) / 12)

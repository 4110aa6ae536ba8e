"""Figures of single sounds that Fréchet distances do not show: pitch, onsets, loudness, centroid."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

from modalities.audio.mel_scale import mel_filters
from modalities.audio.pitch import median_pitch

STATISTIC_UNITS = {"pitch": "semitones (MIDI)", "onsets": "a sound", "loudness": "dB", "centroid": "Hz"}
SILENCE = 1e-3
"""Peak below which a sound is silent (-60 dBFS): it has no pitch, no onsets and no centroid."""
QUIETEST_DB = -100.0
"""The loudness of sounds that are no louder, zeros among them; a step of 16 bits is at -96 dB."""
WINDOW_SECONDS = 0.046
"""Approximate length of the windows of spectra, which overlap by three quarters; onsets need hops below 30 ms."""
NUM_MELS, ONSET_LAG = 64, 2
POWER_FLOOR, RANGE_DB = 1e-10, 80.0
"""Powers that are quieter, or further below a sound's loudest, count as these, as in ``librosa.power_to_db``."""


def sound_statistics(sounds: Tensor, rate: int) -> Mapping[str, Tensor]:
    """Returns the figures of ``STATISTIC_UNITS``, each ``(B,)``, of sounds ``(B, C, T)`` in [-1, 1] at ``rate`` Hz.

    loudness: the root mean square of all channels in dB of full scale, at least ``QUIETEST_DB``. The others are those
    of the mean of the channels. pitch: a MIDI number (``pitch.median_pitch``), NaN without one. onsets: how many
    librosa finds, one at the start of the sound included. centroid: the mean frequency, weighted by the magnitudes of
    the spectra of all frames; NaN for silence.
    """
    sounds = sounds.float()
    power = sounds.square().mean((1, 2)).clamp(min=10 ** (QUIETEST_DB / 10))
    figures = torch.tensor([_figures(wave, rate) for wave in sounds.mean(1).cpu()], device=sounds.device).reshape(-1, 3)
    pitch, onsets, centroid = figures.unbind(1)
    return {"pitch": pitch, "onsets": onsets, "loudness": 10 * power.log10(), "centroid": centroid}


def _figures(wave: Tensor, rate: int) -> tuple[float, float, float]:
    """Returns pitch, number of onsets and centroid of a mono sound ``(T,)``."""
    if not wave.abs().max() >= SILENCE:
        return math.nan, 0.0, math.nan
    pitch = median_pitch(wave, rate)
    window = max(16, 2 ** round(math.log2(WINDOW_SECONDS * rate)))
    # With silence in front, a sound that begins at once has an onset too. Behind, an end would count as one.
    padded = functional.pad(wave, (window, max(0, window - len(wave))))
    frames = padded.unfold(0, window, window // 4) * torch.hann_window(window)
    spectra = torch.fft.rfft(frames).abs() * (2 / window)
    hertz = torch.linspace(0, rate / 2, window // 2 + 1)
    within = spectra[4:].sum(0)  # the frames without the silence in front
    centroid = float((within * hertz).sum() / within.sum())
    return pitch, float(_count_onsets(spectra, rate, window)), centroid


def _count_onsets(spectra: Tensor, rate: int, window: int) -> int:
    """Returns how many onsets librosa finds in magnitudes ``(frames, window / 2 + 1)``.

    They are peaks of the mean rise in dB of mel bands over ``ONSET_LAG`` frames (Böck & Widmer 2013, "Maximum filter
    vibrato suppression for onset detection"), from 7 % of a sound's largest rise on.
    """
    import librosa  # takes a second

    power = spectra.square() @ _mel_filters(rate, window).T
    decibels = 10 * power.clamp(min=POWER_FLOOR).log10()
    decibels = decibels.clamp(min=float(decibels.max()) - RANGE_DB)
    hop = window // 4
    strength = librosa.onset.onset_strength(S=decibels.T.numpy(), sr=rate, hop_length=hop, center=False, lag=ONSET_LAG)
    return len(librosa.onset.onset_detect(onset_envelope=strength, sr=rate, hop_length=hop, units="frames"))


@lru_cache(maxsize=4)
def _mel_filters(rate: int, window: int) -> Tensor:
    """Returns filters ``(NUM_MELS, window / 2 + 1)`` that average a band's powers."""
    return torch.from_numpy(mel_filters(rate, window, NUM_MELS, unit_sum=True)).float()

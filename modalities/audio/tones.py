"""Synthetic sounds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from modalities.audio.modality import AudioModality
from scm_media.data.synthetic import SyntheticDataset
from scm_media.parts import part

SOUND_KINDS = ("tone", "pluck", "sweep", "noise")
LOWEST_PITCH, NUM_PITCHES = 57, 12
"""The MIDI number of the lowest pitch (220 Hz), and the number of pitches: an octave."""

NUM_HARMONICS = 6
ATTACK, DECAY = 0.02, 0.2
"""Fractions of a sound: the rise, and the time in which a pluck falls to a third."""


@part("data")
class TonesDataset(SyntheticDataset):
    """Sounds of four kinds at twelve pitches; labels "kind" and "pitch" (a MIDI number, as a class).

    A tone holds its harmonics, a pluck's die away, the higher the faster, a sweep glides an octave upwards from the
    pitch, noise is a band around it. Loudness, brightness and phase are drawn.
    """

    noun, axes, kind = "tone", "C, T", "sounds"
    label_names = {"kind": SOUND_KINDS, "pitch": tuple(str(LOWEST_PITCH + step) for step in range(NUM_PITCHES))}
    modality_class = AudioModality

    def draw(self, generators: Sequence[torch.Generator], labels: Mapping[str, Tensor]) -> Tensor:
        kinds, pitches, rate = labels["kind"], labels["pitch"], self.modality.sample_rate
        num_channels, length = self.shape
        uniform = torch.stack([torch.rand(3, generator=generator) for generator in generators])
        loudness, brightness, phase = (uniform[:, column, None] for column in range(3))
        hertz = 440 * 2 ** ((pitches[:, None] + LOWEST_PITCH - 69) / 12)
        seconds = torch.arange(length) / rate
        fraction = torch.arange(length) / length
        octaves = torch.where(kinds[:, None] == SOUND_KINDS.index("sweep"), fraction, 0.0)
        # The phase of a frequency that rises by octaves: the integral of f · 2^(s / duration).
        rising = (2**octaves - 1) * length / rate / math.log(2)
        turns = hertz * torch.where(kinds[:, None] == SOUND_KINDS.index("sweep"), rising, seconds) + phase
        harmonics = torch.arange(1, NUM_HARMONICS + 1)
        plucked = (kinds == SOUND_KINDS.index("pluck"))[:, None, None]
        fall = torch.where(plucked, torch.exp(-fraction / DECAY * harmonics[:, None] ** 0.5), 1.0)
        weights = (0.2 + 0.6 * brightness) ** (harmonics - 1)
        heard = hertz * (1 + (kinds[:, None] == SOUND_KINDS.index("sweep"))) * harmonics < rate / 2
        weights = weights * heard
        waves = torch.sin(2 * math.pi * turns[:, None] * harmonics[:, None]) * fall
        pitched = (waves * (weights / weights.sum(1, keepdim=True))[..., None]).sum(1)
        noise = torch.stack([torch.randn(length, generator=generator) for generator in generators])
        sounds = torch.where(kinds[:, None] == SOUND_KINDS.index("noise"), _band(noise, hertz, rate), pitched)
        shaped = sounds * (fraction / ATTACK).clamp(max=1) * ((1 - fraction) / ATTACK).clamp(max=1)
        return ((0.2 + 0.7 * loudness) * shaped)[:, None].expand(-1, num_channels, -1).clamp(-1, 1)

    def fingerprint(self) -> str:
        """Returns what the examples follow from: number, seed of the split, rate, shape."""
        return f"tones-{self._num}-{self._seed}-{self.modality.sample_rate}-{'x'.join(map(str, self.shape))}"


def _band(noise: Tensor, hertz: Tensor, rate: int) -> Tensor:
    """Returns noise ``(B, T)`` within a third of an octave around ``hertz`` ``(B, 1)``, of standard deviation 0.3."""
    frequencies = torch.fft.rfftfreq(noise.shape[-1], 1 / rate).clamp_min(1e-6)
    inside = torch.exp(-((torch.log2(frequencies / hertz) * 6) ** 2))
    band = torch.fft.irfft(torch.fft.rfft(noise) * inside, noise.shape[-1])
    return 0.3 * band / band.square().mean(-1, keepdim=True).sqrt().clamp_min(1e-6)

"""Synthetic sounds made on the fly: data that needs no download, for tests and first runs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from scm_media.data.examples import Batch, Example, check_split, transform_batch
from scm_media.data.order import mix
from scm_media.interfaces import Modality
from scm_media.parts import part

KINDS = ("tone", "pluck", "sweep", "noise")
LOWEST_PITCH, NUM_PITCHES = 57, 12
"""MIDI number of the lowest pitch (220 Hz), and how many there are: an octave."""

NUM_HARMONICS = 6
ATTACK, DECAY = 0.02, 0.2
"""Shares of a clip: how long a sound takes to rise, and in what a pluck falls to a third."""


@part("data")
class TonesDataset:
    """``num`` sounds of four kinds at twelve pitches; labels "kind" and "pitch" (a MIDI number, as a class).

    A tone holds its harmonics, a pluck's die away, the higher the faster, a sweep glides an octave upwards from the
    pitch, noise is a band around it. A sound is a pure function of (seed, split, index); kinds take turns, loudness,
    brightness and phase are drawn. Sounds alone: a modality whose shape is not ``(C, T)`` or that has no
    ``sample_rate`` is refused, and so is a root, since no file is read.
    """

    def __init__(
        self,
        modality: Modality,
        num: int = 4096,
        seed: int = 0,
        split: str = "train",
        held_out: float = 0.02,
        root: str | None = None,
    ) -> None:
        check_split(split)
        self.modality = modality
        self.shape = modality.shape()
        rate = getattr(modality, "sample_rate", None)
        if len(self.shape) != 2 or rate is None:
            raise ValueError(f"tones are sounds (C, T), the modality {modality.name} asks for {self.shape}")
        if root is not None:
            raise ValueError(f"data.root={root} is read by no one: tones are made on the fly; choose data=folder")
        if num < 1:
            raise ValueError(f"data.num must be at least 1, got {num}")
        self._rate = rate
        self._num = num if split == "train" else max(1, round(num * held_out))
        self._seed = mix(seed, 0 if split == "train" else 1)
        self.label_names = {
            "kind": KINDS,
            "pitch": tuple(str(LOWEST_PITCH + step) for step in range(NUM_PITCHES)),
        }
        labels = self._labels(range(self._num))
        self.label_counts = {
            name: tuple(torch.bincount(labels[name], minlength=len(classes)).tolist())
            for name, classes in self.label_names.items()
        }
        self.rejects: dict[str, int] = {}
        self.rejected: list[tuple[str, str]] = []

    def __len__(self) -> int:
        return self._num

    def __getitem__(self, index: int) -> Example:
        batch = self.batch([index])
        labels = {name: int(label[0]) for name, label in batch.labels.items()}
        return Example(batch.sample[0], labels, None, f"tone {index}")

    def batch(self, indices: Sequence[int], generators: Sequence[torch.Generator] | None = None) -> Batch:
        """The batch of these examples; ``generators``, one an example, make their augmentation."""
        for index in indices:
            if not 0 <= index < self._num:
                raise IndexError(f"example {index} of {self._num}")
        labels = self._labels(indices)
        samples = self._draw(indices, labels["kind"], labels["pitch"])
        return Batch(transform_batch(self.modality, samples, generators), labels)

    def _labels(self, indices: Sequence[int]) -> dict[str, Tensor]:
        places = torch.as_tensor(indices, dtype=torch.int64)
        # Every kind meets every pitch: the pitch moves on when the kinds have had their turn.
        return {"kind": places % len(KINDS), "pitch": places // len(KINDS) % NUM_PITCHES}

    def _draw(self, indices: Sequence[int], kinds: Tensor, pitches: Tensor) -> Tensor:
        num_channels, length = self.shape
        own = [torch.Generator().manual_seed(mix(self._seed, index)) for index in indices]
        uniform = torch.stack([torch.rand(3, generator=generator) for generator in own])
        loudness, brightness, phase = (uniform[:, place, None] for place in range(3))
        hertz = 440 * 2 ** ((pitches[:, None] + LOWEST_PITCH - 69) / 12)
        seconds = torch.arange(length) / self._rate
        fraction = torch.arange(length) / length
        octaves = torch.where(kinds[:, None] == KINDS.index("sweep"), fraction, 0.0)
        # The phase of a frequency that rises by octaves: the integral of f · 2^(s / duration).
        rising = (2**octaves - 1) * length / self._rate / math.log(2)
        turns = hertz * torch.where(kinds[:, None] == KINDS.index("sweep"), rising, seconds) + phase
        harmonics = torch.arange(1, NUM_HARMONICS + 1)
        plucked = (kinds == KINDS.index("pluck"))[:, None, None]
        fall = torch.where(plucked, torch.exp(-fraction / DECAY * harmonics[:, None] ** 0.5), 1.0)
        weights = (0.2 + 0.6 * brightness) ** (harmonics - 1)
        heard = hertz * (1 + (kinds[:, None] == KINDS.index("sweep"))) * harmonics < self._rate / 2
        weights = weights * heard
        waves = torch.sin(2 * math.pi * turns[:, None] * harmonics[:, None]) * fall
        pitched = (waves * (weights / weights.sum(1, keepdim=True))[..., None]).sum(1)
        noise = torch.stack([torch.randn(length, generator=generator) for generator in own])
        sounds = torch.where(kinds[:, None] == KINDS.index("noise"), _band(noise, hertz, self._rate), pitched)
        shaped = sounds * (fraction / ATTACK).clamp(max=1) * ((1 - fraction) / ATTACK).clamp(max=1)
        return ((0.2 + 0.7 * loudness) * shaped)[:, None].expand(-1, num_channels, -1).clamp(-1, 1)

    def fingerprint(self) -> str:
        """What tells these examples from others: number, seed of the split, rate, shape."""
        return f"tones-{self._num}-{self._seed}-{self._rate}-{'x'.join(map(str, self.shape))}"


def _band(noise: Tensor, hertz: Tensor, rate: int) -> Tensor:
    """Noise ``(B, T)`` within a third of an octave around ``hertz`` ``(B, 1)``, of deviation 0.3."""
    frequencies = torch.fft.rfftfreq(noise.shape[-1], 1 / rate).clamp_min(1e-6)
    inside = torch.exp(-((torch.log2(frequencies / hertz) * 6) ** 2))
    band = torch.fft.irfft(torch.fft.rfft(noise) * inside, noise.shape[-1])
    return 0.3 * band / band.square().mean(-1, keepdim=True).sqrt().clamp_min(1e-6)

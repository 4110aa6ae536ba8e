"""The feature extractor of sounds: a classifier of log-mel spectrograms."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from modalities.audio.mel_scale import mel_filters
from scm_media.nn.classifier import LabelClassifier, classes_of, conv_block, hidden_layer
from scm_media.parts import part

WINDOW_SECONDS = 0.08
"""Approximate length of the window; neighbouring semitones of low notes then differ in their overtones."""

NUM_BANDS = 128
LOWEST_HERTZ = 30.0
HIGHEST_RATE = 384_000
QUIETEST = 1e-8
"""Power added to each band, so that quieter ones look alike."""


@part("feature_extractor")
class AudioClassifier(LabelClassifier):
    """Classifies sounds by their labels; the last hidden layer gives the features.

    channels: of the waveforms. labels: name to number of classes; scalar labels (0) get no scores. sample_rate: Hz.
    width: channels of the first layer; the next have twice and four times as many. num_features: the dimension of the
    features. Sounds may have any length from a window (about 80 ms) on; features keep the time of an event to a quarter
    of the sound's length. Raises ValueError when no label has classes, or the rate is out of bounds.
    """

    def __init__(
        self, channels: int, labels: Mapping[str, int], sample_rate: int, width: int = 24, num_features: int = 128
    ) -> None:
        if not 2 * LOWEST_HERTZ <= sample_rate <= HIGHEST_RATE:
            raise ValueError(
                f"feature_extractor.network.sample_rate must lie in {2 * LOWEST_HERTZ:g} … {HIGHEST_RATE} Hz, got "
                f"{sample_rate}"
            )
        trunk = nn.Sequential(
            nn.BatchNorm2d(channels),
            conv_block(channels, width),
            nn.MaxPool2d(2, ceil_mode=True),
            conv_block(width, 2 * width),
            nn.MaxPool2d(2, ceil_mode=True),
            conv_block(2 * width, 4 * width),
            nn.MaxPool2d((2, 1), ceil_mode=True),
            nn.AdaptiveAvgPool2d((8, 4)),
            *hidden_layer(4 * width * 32, num_features),
        )
        super().__init__(trunk, classes_of(labels), num_features)
        self.window = 2 ** round(math.log2(WINDOW_SECONDS * sample_rate))
        self.register_buffer("taper", torch.hann_window(self.window), persistent=False)
        filters = mel_filters(sample_rate, self.window, NUM_BANDS, LOWEST_HERTZ, scale="htk", unit_sum=True)
        self.register_buffer("filters", torch.from_numpy(filters).float(), persistent=False)
        self.to(memory_format=torch.channels_last)  # a third faster on a CPU

    def spectrogram(self, sample: Tensor) -> Tensor:
        """Returns half the log10 of mel powers ``(B, C, NUM_BANDS, frames)`` of waveforms ``(B, C, T)``: 0 to -4."""
        short = self.window - sample.shape[-1]
        wave = functional.pad(sample.float(), (0, short)) if short > 0 else sample.float()
        frames = wave.unfold(-1, self.window, self.window // 2) * self.taper
        power = torch.view_as_real(torch.fft.rfft(frames)).square().sum(-1) * (4 / self.window) ** 2
        return torch.log10(power @ self.filters.T + QUIETEST).transpose(-1, -2) / 2

    def features(self, sample: Tensor) -> Tensor:
        """Returns features ``(B, num_features)`` of waveforms ``(B, C, T)`` in [-1, 1]."""
        return self.trunk(self.spectrogram(sample).contiguous(memory_format=torch.channels_last))

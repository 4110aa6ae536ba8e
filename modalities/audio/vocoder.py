"""A vocoder: a network from log-mel spectrograms to waveforms, frame by frame in the Fourier domain."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from modalities.audio.mel import LogMel, MelLatents
from scm_media.parts import part

_CERTAIN = -30.0
"""Logarithm of a variance that is negligible."""
_LOUDEST = 100.0
"""The largest magnitude of a bin, five times that of a sine of full scale."""


class _ConvNeXtBlock(nn.Module):
    """Computes x + γ · W₂ gelu(W₁ norm(depthwise(x))) along time, with a learned γ per channel (Liu et al. 2022)."""

    def __init__(self, width: int, hidden: int, scale: float, kernel: int = 7) -> None:
        super().__init__()
        self.depthwise = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width)
        self.norm = nn.LayerNorm(width)
        self.first, self.second = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.scale = nn.Parameter(torch.full((width,), scale))

    def forward(self, x: Tensor) -> Tensor:
        """Returns frames ``(B, K, width)`` for frames ``(B, K, width)``."""
        y = self.depthwise(x.transpose(1, 2)).transpose(1, 2)
        return x + self.scale * self.second(functional.gelu(self.first(self.norm(y))))


class Vocoder(nn.Module):
    """Makes waveforms from log-mel spectrograms in the manner of Vocos (Siuzdak 2023, arXiv 2306.00814, section 3).

    ConvNeXt blocks run at the frames' own rate, then predict magnitude and phase of each frame's spectrum for the
    overlap-add, without upsampling. Predicted magnitudes are added, in nepers, to the least-squares estimate from the
    bands. Phases start at random: an untrained network makes noise of the right loudness and colour (with equal phases
    each frame would be a click where its window is closed). mel: the spectrograms, of any channels. width, depth: of
    the blocks; their hidden layers are three times as wide.
    """

    def __init__(self, mel: LogMel, width: int = 256, depth: int = 6) -> None:
        super().__init__()
        if width < 1 or depth < 1:
            raise ValueError(f"autoencoder.network.width and depth must be at least 1, got {width} and {depth}")
        self.mel = mel
        self.embedding = nn.Conv1d(mel.num_mels, width, 7, padding=3)
        self.first_norm, self.last_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.blocks = nn.ModuleList(_ConvNeXtBlock(width, 3 * width, 1 / depth) for _ in range(depth))
        self.head = nn.Linear(width, mel.frames.window + 2)
        for module in self.modules():
            if isinstance(module, nn.Conv1d | nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        nn.init.uniform_(self.head.bias[mel.frames.window // 2 + 1 :], -math.pi, math.pi)

    def forward(self, log_mel: Tensor) -> Tensor:
        """Returns waveforms ``(B, K · hop)``, not clipped, for log-mel spectrograms ``(B, num_mels, K)``."""
        x = self.first_norm(self.embedding(log_mel).transpose(1, 2))
        for block in self.blocks:
            x = block(x)
        with torch.autocast(log_mel.device.type, enabled=False):
            correction, phase = self.head(self.last_norm(x.to(self.head.weight.dtype))).chunk(2, -1)
            estimate = self.mel.magnitudes(log_mel.to(correction.dtype), 0).clamp(min=1e-5)
            # Clamped twice: a gradient of zero times an exponential that overflows is not a number.
            magnitude = (estimate * correction.clamp(max=10).exp()).clamp(max=_LOUDEST)
            return self.mel.frames.synthesise(torch.complex(magnitude * phase.cos(), magnitude * phase.sin()))


@part("autoencoder")
class VocodedMel(MelLatents):
    """Maps waveforms to log-mel spectrograms, and back by a ``Vocoder`` that the stage ``autoencoder`` trains.

    sample_rate … highest: as in ``LogMel``; channels of a waveform are vocoded one by one. width, depth: of the
    vocoder. The posterior has no variance: leave ``autoencoder.loss.kl_weight`` at 0.
    """

    rank = 1
    """Number of axes of a sample besides batch and channels."""

    def __init__(
        self,
        sample_rate: int,
        window: int = 1024,
        hop: int = 256,
        num_mels: int = 80,
        lowest: float = 0.0,
        highest: float | None = None,
        channels: int = 1,
        width: int = 256,
        depth: int = 6,
        sigma_data: float = 0.5,
    ) -> None:
        super().__init__(LogMel(channels, sample_rate, window, hop, num_mels, lowest, highest), sigma_data)
        self.vocoder = Vocoder(self.mel, width, depth)

    def posterior(self, sample: Tensor) -> tuple[Tensor, Tensor]:
        """Returns log-mel spectrograms ``(B, channels, num_mels, T / hop)``, and a negligible log-variance."""
        log_mel = self.mel(sample)
        return log_mel, torch.full_like(log_mel, _CERTAIN)

    def synthesize(self, code: Tensor) -> Tensor:
        """Returns waveforms ``(B, channels, T)``, not clipped, for log-mel spectrograms."""
        return self.vocoder(code.flatten(0, 1)).unflatten(0, code.shape[:2])

    def waveform(self, latent: Tensor) -> Tensor:
        """Returns waveforms ``(B, channels, T)``, not clipped, so that gradients pass everywhere."""
        return self.synthesize(self._log_mel(latent))

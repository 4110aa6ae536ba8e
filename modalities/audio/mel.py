"""Log-mel spectrograms as latents, and their inversion without a network: least squares, peaks, Griffin–Lim."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from modalities.audio.fourier import FourierFrames, check_iterations, check_waveform
from modalities.audio.levels import limit_peaks
from modalities.audio.mel_scale import mel_filters
from modalities.audio.phases import peak_phases
from scm_media.nn.channel_scale import ChannelScale
from scm_media.parts import part

QUIETEST = 1e-5
"""Magnitude added to bands before the logarithm: half a step of 16 bits."""

PHASES = ("peaks", "random")
MAX_MELS = 512


def _check_bands(sample_rate: int, num_mels: int, lowest: float, highest: float) -> None:
    """Raises ValueError for bands outside 0 … sample_rate / 2, and for a number of them out of bounds."""
    if not 0 <= lowest < highest <= sample_rate / 2:
        raise ValueError(
            f"autoencoder.network.lowest and highest must lie in [0, {sample_rate / 2:g}] Hz, half the sampling rate, "
            f"in this order; got {lowest:g} and {highest:g}"
        )
    if not 1 <= num_mels <= MAX_MELS:
        raise ValueError(f"autoencoder.network.num_mels must lie in 1 … {MAX_MELS}, got {num_mels}")


class LogMel(nn.Module):
    """Computes the logarithm of the magnitudes in mel bands, log(band + quietest), and magnitudes from it.

    channels: of waveforms ``(B, channels, T)``. sample_rate, lowest, highest: in Hz; highest: None for half the rate.
    window, hop: in samples. quietest: the magnitude around which the logarithm turns into a straight line, which
    loses nothing. A sine of full scale has sqrt(window / 6), so that 1e-3 lies 82 dB below one in 1,024 samples.
    Raises ValueError as ``FourierFrames``, for bands out of bounds or between two bins, and for a quietest that is not
    positive.
    """

    filters: Tensor
    inverse: Tensor
    steps: Tensor

    def __init__(
        self,
        channels: int,
        sample_rate: int,
        window: int = 1024,
        hop: int = 256,
        num_mels: int = 80,
        lowest: float = 0.0,
        highest: float | None = None,
        quietest: float = QUIETEST,
    ) -> None:
        super().__init__()
        if not quietest > 0:
            raise ValueError(f"autoencoder.network.quietest must be a positive magnitude, got {quietest}")
        self.channels, self.num_mels, self.quietest = channels, num_mels, quietest
        self.frames = FourierFrames(window, hop)
        highest = sample_rate / 2 if highest is None else highest
        _check_bands(sample_rate, num_mels, lowest, highest)
        filters = mel_filters(sample_rate, window, num_mels, lowest, highest).T.copy()
        if empty := int((filters.max(0) == 0).sum()):
            raise ValueError(
                f"{empty} of {num_mels} mel bands lie between two bins, which are {sample_rate / window:g} Hz apart: "
                "lower autoencoder.network.num_mels, or take a longer window"
            )
        # Not saved: they follow from the configuration.
        self.register_buffer("filters", torch.from_numpy(filters.astype(np.float32)), persistent=False)
        inverse = np.linalg.pinv(filters).astype(np.float32)
        self.register_buffer("inverse", torch.from_numpy(inverse), persistent=False)
        # One over the row sums of filters · filtersᵀ, none negative: the largest steps of which each bin may have its
        # own, since the product then has no eigenvalue above 1.
        overlap = filters @ filters.sum(0)
        steps = np.divide(1, overlap, out=np.zeros_like(overlap), where=overlap > 0).astype(np.float32)
        self.register_buffer("steps", torch.from_numpy(steps), persistent=False)

    def forward(self, sample: Tensor) -> Tensor:
        """Returns log-mel spectrograms ``(B, channels, num_mels, T / hop)`` of waveforms, in nepers."""
        check_waveform(sample, self.channels)
        self.frames.num_frames(sample.shape[-1])
        sample = sample if sample.dtype == torch.float64 else sample.float()
        with torch.autocast(sample.device.type, enabled=False):
            bands = self.frames.analyse(sample).abs() @ self.filters.to(sample.dtype)
        return (bands + self.quietest).log().transpose(-1, -2)

    def bands(self, log_mel: Tensor) -> Tensor:
        """Returns the magnitudes in mel bands, none negative, of log-mel spectrograms of the same shape."""
        return (log_mel.exp() - self.quietest).clamp(min=0)

    def magnitudes(self, log_mel: Tensor, num_iterations: int) -> Tensor:
        """Returns non-negative magnitudes ``(*, T / hop, window / 2 + 1)`` whose mel bands come nearest to the given.

        It uses accelerated projected gradients (Beck & Teboulle 2009, "FISTA") from the pseudo-inverse on, with a step
        for each bin.
        """
        with torch.autocast(log_mel.device.type, enabled=False):
            bands = self.bands(log_mel).transpose(-1, -2)
            filters = self.filters.to(bands.dtype)
            rows = bands.flatten(0, -2)
            downhill = -self.steps.to(bands.dtype) * filters.T
            found = (rows @ self.inverse.to(bands.dtype)).clamp(min=0)
            ahead, momentum = found, 1.0
            for _ in range(num_iterations):
                residual = torch.addmm(rows, ahead, filters, beta=-1)
                following = torch.addmm(ahead, residual, downhill).clamp(min=0)
                next_momentum = (1 + math.sqrt(1 + 4 * momentum**2)) / 2
                ahead = torch.lerp(found, following, 1 + (momentum - 1) / next_momentum)
                found, momentum = following, next_momentum
        return found.unflatten(0, bands.shape[:-1])


class MelLatents(nn.Module):
    """Maps waveforms to log-mel spectrograms, normalised by mean and standard deviation.

    Latents are ``(B, channels, num_mels, T / hop)``. A subclass's ``waveform`` inverts them. mel: the spectrograms.
    ``fit`` measures mean and standard deviation of each channel; ``encode`` and ``decode`` raise ValueError before
    that, or before weights are loaded.
    """

    def __init__(self, mel: LogMel, sigma_data: float) -> None:
        super().__init__()
        self.mel = mel
        self.channels = self.latent_channels = mel.channels
        self.scale = ChannelScale(
            mel.channels,
            sigma_data,
            channel_name="the log-mel spectrogram of waveform channel {}",
            remedy="check the data (silence? not finite?), or modality.channels",
        )

    @property
    def frames(self) -> FourierFrames:
        """Returns the transform below the spectrograms."""
        return self.mel.frames

    def fit(self, samples: Iterable[Tensor]) -> None:
        """Measures mean and standard deviation over batches ``(B, channels, T)``; raises as ``ChannelScale.fit``."""
        device = self.mel.filters.device
        self.scale.fit(self.mel(sample.to(device)) for sample in samples)

    def encode(self, sample: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Returns latents of standard deviation sigma_data; the generator is not used."""
        return self.scale.normalize(self.mel(sample))

    def decode(self, latent: Tensor) -> Tensor:
        """Returns waveforms ``(B, channels, T)`` in [-1, 1], with the level lowered where the peak is higher."""
        return limit_peaks(self.waveform(latent))

    def waveform(self, latent: Tensor) -> Tensor:
        """Returns waveforms ``(B, channels, T)``, not clipped."""
        raise NotImplementedError

    def latent_shape(self, sample_shape: Sequence[int]) -> tuple[int, ...]:
        """Returns ``(C, num_mels, T / hop)``; raises ValueError where the hop does not divide T."""
        return (self.channels, self.mel.num_mels, self.frames.num_frames(sample_shape[-1]))

    def sample_shape(self, latent_shape: Sequence[int]) -> tuple[int, ...]:
        """Returns ``(C, T)``, a hop for each frame."""
        return (self.channels, latent_shape[-1] * self.frames.hop)

    def latent_mask(self, mask: Tensor) -> Tensor:
        """Returns ``(B, 1, num_mels, T / hop)``: one where all of a frame's own hop of ``(B, 1, T)`` is one."""
        return self.frames.mask(mask).repeat(1, 1, self.mel.num_mels, 1)

    def _log_mel(self, latent: Tensor) -> Tensor:
        return self.scale.denormalize(latent if latent.dtype == torch.float64 else latent.float())


@part("autoencoder")
class LogMelSpectrogram(MelLatents):
    """Maps waveforms to log-mel spectrograms, and back without a network.

    The phase is lost. Decoding finds magnitudes by non-negative least squares, and phases by following the peaks of the
    spectra (``modalities.audio.phases``) and then by Griffin–Lim; it is deterministic. sample_rate … quietest: as in
    ``LogMel``; phases need hops of a quarter of the window.
    phase: the phases that Griffin–Lim starts from, "peaks" or "random". magnitude_iterations, phase_iterations: of the
    two searches; few are needed from the peaks.
    """

    def __init__(
        self,
        sample_rate: int,
        channels: int = 1,
        window: int = 1024,
        hop: int = 256,
        num_mels: int = 80,
        lowest: float = 0.0,
        highest: float | None = None,
        quietest: float = QUIETEST,
        magnitude_iterations: int = 30,
        phase: str = "peaks",
        phase_iterations: int = 16,
        sigma_data: float = 0.5,
    ) -> None:
        mel = LogMel(channels, sample_rate, window, hop, num_mels, lowest, highest, quietest)
        super().__init__(mel, sigma_data)
        check_iterations("phase_iterations", phase_iterations)
        check_iterations("magnitude_iterations", magnitude_iterations)
        if phase not in PHASES:
            raise ValueError(f"autoencoder.network.phase must be one of {', '.join(PHASES)}, got {phase!r}")
        self.phase, self.phase_iterations = phase, phase_iterations
        self.magnitude_iterations = magnitude_iterations

    def waveform(self, latent: Tensor) -> Tensor:
        """Returns waveforms ``(B, channels, T)``, not clipped."""
        magnitudes = self.mel.magnitudes(self._log_mel(latent), self.magnitude_iterations)
        phases = peak_phases(magnitudes, self.frames.hop) if self.phase == "peaks" else None
        return self.frames.griffin_lim(magnitudes, self.phase_iterations, phases)

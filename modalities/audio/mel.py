"""Log-mel spectrograms as latents, turned back into sound without a network: least squares, then Griffin–Lim."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from modalities.audio.fourier import FourierFrames, check_waveform
from modalities.audio.sheet import hertz, mel
from scm_media.nn.channel_scale import ChannelScale

_FLOOR = 1e-5
"""Amplitude that quieter bands are raised to before the logarithm: half a step of 16 bits."""


def mel_filters(sample_rate: int, window: int, num_mels: int, lowest: float, highest: float) -> np.ndarray:
    """Triangles ``(window / 2 + 1, num_mels)`` on Slaney's mel scale, each with weights of sum about one.

    Frequencies in Hz. They are those of librosa.filters.mel, whose area is one per Hz, times the Hz between two bins.
    Raises ValueError for a band outside 0 … sample_rate / 2, and where a triangle lies between two bins.
    """
    if not 0 <= lowest < highest <= sample_rate / 2:
        raise ValueError(
            f"autoencoder.network.lowest and highest must lie in [0, {sample_rate / 2:g}] Hz, half the sampling rate, "
            f"in this order; got {lowest:g} and {highest:g}"
        )
    if num_mels < 1:
        raise ValueError(f"autoencoder.network.num_mels must be at least 1, got {num_mels}")
    edges = hertz(np.linspace(mel(lowest), mel(highest), num_mels + 2))
    bins = np.linspace(0, sample_rate / 2, window // 2 + 1)[:, None]
    rising, falling = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2]), (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    filters = np.maximum(0, np.minimum(rising, falling)) * (2 / (edges[2:] - edges[:-2])) * (sample_rate / window)
    if empty := int((filters.max(0) == 0).sum()):
        raise ValueError(
            f"{empty} of {num_mels} mel bands lie between two bins, which are {sample_rate / window:g} Hz apart: "
            "lower autoencoder.network.num_mels, or take a longer window"
        )
    return filters


class LogMel(nn.Module):
    """The logarithm of the magnitudes in mel bands, and a waveform made of it.

    channels: of waveforms ``(B, channels, T)``. sample_rate, lowest, highest: in Hz; highest: None for half the rate.
    window, hop: in samples. Raises ValueError as ``FourierFrames`` and ``mel_filters``.
    """

    filters: Tensor
    inverse: Tensor

    def __init__(
        self,
        channels: int,
        sample_rate: int,
        window: int = 1024,
        hop: int = 256,
        num_mels: int = 80,
        lowest: float = 0.0,
        highest: float | None = None,
    ) -> None:
        super().__init__()
        self.channels, self.num_mels = channels, num_mels
        self.frames = FourierFrames(window, hop)
        highest = sample_rate / 2 if highest is None else highest
        filters = mel_filters(sample_rate, window, num_mels, lowest, highest)
        # Not saved: they follow from the configuration.
        self.register_buffer("filters", torch.from_numpy(filters.astype(np.float32)), persistent=False)
        inverse = np.linalg.pinv(filters).astype(np.float32)
        self.register_buffer("inverse", torch.from_numpy(inverse), persistent=False)
        self.step_size = 1 / float(np.linalg.norm(filters, 2)) ** 2

    def forward(self, sample: Tensor) -> Tensor:
        """Log-mel spectrograms ``(B, channels, num_mels, T / hop)`` of waveforms, in nepers."""
        check_waveform(sample, self.channels)
        self.frames.num_frames(sample.shape[-1])
        sample = sample if sample.dtype == torch.float64 else sample.float()
        with torch.autocast(sample.device.type, enabled=False):
            bands = self.frames.analyse(sample).abs() @ self.filters.to(sample.dtype)
        return bands.clamp(min=_FLOOR).log().transpose(-1, -2)

    def magnitudes(self, log_mel: Tensor, num_iterations: int) -> Tensor:
        """Magnitudes ``(*, T / hop, window / 2 + 1)``, none negative, whose mel bands come nearest to those given.

        Accelerated projected gradient (Beck & Teboulle 2009, "FISTA") from the pseudo-inverse on.
        """
        with torch.autocast(log_mel.device.type, enabled=False):
            bands = log_mel.exp().transpose(-1, -2)
            filters = self.filters.to(bands.dtype)
            found = (bands @ self.inverse.to(bands.dtype)).clamp(min=0)
            ahead, momentum = found, 1.0
            for _ in range(num_iterations):
                slope = (ahead @ filters - bands) @ filters.T
                following = (ahead - self.step_size * slope).clamp(min=0)
                stronger = (1 + math.sqrt(1 + 4 * momentum**2)) / 2
                ahead = following + (momentum - 1) / stronger * (following - found)
                found, momentum = following, stronger
        return found


class MelLatents(nn.Module):
    """Latents ``(B, channels, num_mels, T / hop)``: log-mel spectrograms, normalised by mean and deviation.

    How they become sound again is left to ``waveform`` of those who inherit. mel: the spectrograms.
    ``fit`` measures mean and deviation of each channel; ``encode`` and ``decode`` refuse (ValueError) before, or
    before weights are loaded.
    """

    def __init__(self, mel: LogMel, sigma_data: float) -> None:
        super().__init__()
        self.mel = mel
        self.channels = self.latent_channels = mel.channels
        self.scale = ChannelScale(
            mel.channels,
            sigma_data,
            what="the log-mel spectrogram of waveform channel {}",
            remedy="check the data (silence? not finite?), or modality.channels",
        )

    @property
    def frames(self) -> FourierFrames:
        """The transform below the spectrograms."""
        return self.mel.frames

    def fit(self, samples: Iterable[Tensor]) -> None:
        """Measures mean and deviation over batches ``(B, channels, T)``; raises ValueError as ``ChannelScale.fit``."""
        device = self.mel.filters.device
        self.scale.fit(self.mel(sample.to(device)) for sample in samples)

    def encode(self, sample: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Latents of deviation sigma_data; nothing is drawn, so the generator is not used."""
        return self.scale.normalize(self.mel(sample))

    def decode(self, latent: Tensor) -> Tensor:
        """Waveforms ``(B, channels, T)``, clipped to [-1, 1]."""
        return self.waveform(latent).clamp(-1, 1)

    def waveform(self, latent: Tensor) -> Tensor:
        """What ``decode`` gives before it is clipped."""
        raise NotImplementedError

    def latent_shape(self, sample_shape: Sequence[int]) -> tuple[int, ...]:
        """``(C, num_mels, T / hop)``; ValueError where the hop does not divide T."""
        return (self.channels, self.mel.num_mels, self.frames.num_frames(sample_shape[-1]))

    def sample_shape(self, latent_shape: Sequence[int]) -> tuple[int, ...]:
        """``(C, T)``: a hop for each frame."""
        return (self.channels, latent_shape[-1] * self.frames.hop)

    def latent_mask(self, mask: Tensor) -> Tensor:
        """``(B, 1, num_mels, T / hop)``: one where the frame's own hop of ``(B, 1, T)`` is one throughout."""
        return self.frames.mask(mask).repeat(1, 1, self.mel.num_mels, 1)

    def _log_mel(self, latent: Tensor) -> Tensor:
        return self.scale.denormalize(latent if latent.dtype == torch.float64 else latent.float())


class LogMelSpectrogram(MelLatents):
    """Log-mel spectrograms as latents; sound is made of them without a network.

    The phase is lost: magnitudes are found by non-negative least squares and phases by Griffin–Lim, the same for the
    same latent. Better sound comes from a vocoder (``modalities.audio.vocoder``) or from complex spectrograms.
    sample_rate … highest: as in ``LogMel``; hops of a quarter of the window keep the phases findable.
    magnitude_iterations, phase_iterations: of the two searches.
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
        magnitude_iterations: int = 30,
        phase_iterations: int = 32,
        sigma_data: float = 0.5,
    ) -> None:
        super().__init__(LogMel(channels, sample_rate, window, hop, num_mels, lowest, highest), sigma_data)
        for name, value in (("phase", phase_iterations), ("magnitude", magnitude_iterations)):
            if value < 0:
                raise ValueError(f"autoencoder.network.{name}_iterations must not be negative, got {value}")
        self.phase_iterations, self.magnitude_iterations = phase_iterations, magnitude_iterations

    def waveform(self, latent: Tensor) -> Tensor:
        """Waveforms ``(B, channels, T)``, not clipped."""
        magnitudes = self.mel.magnitudes(self._log_mel(latent), self.magnitude_iterations)
        return self.frames.griffin_lim(magnitudes, self.phase_iterations)

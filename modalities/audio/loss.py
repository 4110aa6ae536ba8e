"""Measures distances of sounds, and scores sounds by a discriminator, on spectra of several window lengths."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from modalities.audio.fourier import FourierFrames
from modalities.audio.mel import LogMel
from modalities.audio.spectrogram import compress
from scm_media.nn.discriminator import PatchDiscriminator
from scm_media.parts import part

_FLOOR = 1e-4
"""Smaller magnitudes, 80 dB below full scale, are replaced by it before a root or a logarithm."""
_QUIET = 1e-3
"""Magnitude below which the compression is linear."""
_LEAST_RMS, _LEAST_ROOT = 1e-3, 1e-2
"""The least divisors of terms: a root mean square of magnitudes, and a mean of their square roots."""


@part("distance")
class SpectralDistance(nn.Module):
    """Computes weighted terms of the distance of sounds x and y with spectra X and Y; terms of weight 0 are left out.

    waveform: mean |x − y|. complex: Σ|A − B| / Σ|A|, where A = |X|^½ e^{i·phase of X} and B is the same of Y.
    convergence, log_magnitude: ‖|X| − |Y|‖ / ‖|X|‖ and mean |ln|X| − ln|Y|| (Yamamoto et al. 2020, "Parallel WaveGAN",
    equations 4 and 5), without phases. Terms of spectra are averaged over the windows (in samples; hops are a quarter
    of them). mel: mean difference of log-mel spectrograms, which needs sample_rate (Hz). Raises ValueError for weights
    that are negative or all 0, and for waveforms no longer than half a window.
    """

    def __init__(
        self,
        windows: Sequence[int] = (512, 1024, 2048),
        waveform_weight: float = 1.0,
        complex_weight: float = 1.0,
        convergence_weight: float = 1.0,
        log_magnitude_weight: float = 1.0,
        mel_weight: float = 0.0,
        sample_rate: int | None = None,
        num_mels: int = 80,
    ) -> None:
        super().__init__()
        weights = {
            "waveform": waveform_weight,
            "complex": complex_weight,
            "convergence": convergence_weight,
            "log_magnitude": log_magnitude_weight,
            "mel": mel_weight,
        }
        for name, weight in weights.items():
            if not weight >= 0:
                raise ValueError(f"autoencoder.loss.distance.{name}_weight must not be negative, got {weight}")
        self.weights = {name: weight for name, weight in weights.items() if weight > 0}
        if not self.weights:
            raise ValueError("autoencoder.loss.distance: all weights are 0, so that nothing would be learned")
        if not windows or any(window % 4 for window in windows):
            raise ValueError(f"autoencoder.loss.distance.windows must be multiples of 4 samples, got {list(windows)}")
        self.transforms = nn.ModuleList(FourierFrames(window, window // 4) for window in windows)
        self.mel: LogMel | None = None
        if mel_weight > 0:
            if sample_rate is None:
                raise ValueError("autoencoder.loss.distance.mel_weight needs distance.sample_rate (Hz)")
            self.mel = LogMel(1, sample_rate, num_mels=num_mels)

    def forward(self, sample: Tensor, made: Tensor) -> dict[str, Tensor]:
        """Returns weighted terms ``(B,)`` by name for waveforms ``(B, C, T)``."""
        with torch.autocast(sample.device.type, enabled=False):
            sample, made = (x if x.dtype == torch.float64 else x.float() for x in (sample, made))
            terms: dict[str, list[Tensor]] = {"waveform": [_mean((made - sample).abs())]}
            if self.mel is not None:
                terms["mel"] = [_mean((self._log_mel(made) - self._log_mel(sample)).abs())]
            if self.weights.keys() & {"complex", "convergence", "log_magnitude"}:
                for transform in self.transforms:
                    for name, term in _spectral_terms(transform, sample, made).items():
                        terms.setdefault(name, []).append(term)
        return {name: weight * torch.stack(terms[name]).mean(0) for name, weight in self.weights.items()}

    def _log_mel(self, waveform: Tensor) -> Tensor:
        assert self.mel is not None
        return self.mel(waveform.flatten(0, 1)[:, None]).unflatten(0, waveform.shape[:2])


def _spectral_terms(transform: nn.Module, sample: Tensor, made: Tensor) -> dict[str, Tensor]:
    """Returns the terms ``(B,)`` of one window."""
    if sample.shape[-1] <= transform.margin:
        raise ValueError(
            f"waveforms of {sample.shape[-1]} samples are too short for a window of {transform.window}: take smaller "
            "autoencoder.loss.distance.windows"
        )
    spectra = [torch.view_as_real(transform.analyse(waveform)) for waveform in (sample, made)]
    magnitude, magnitude_made = (spectrum.square().sum(-1).clamp(min=_FLOOR**2).sqrt() for spectrum in spectra)
    rms = magnitude.flatten(1).square().mean(1).sqrt().clamp(min=_LEAST_RMS)
    root, root_made = map(_compress, spectra)
    difference = _smooth_sqrt((root_made - root).square().sum(-1))
    return {
        "complex": _mean(difference) / _mean(root.square().sum(-1).sqrt()).clamp(min=_LEAST_ROOT),
        "convergence": _smooth_sqrt((magnitude_made - magnitude).flatten(1).square().mean(1)) / rms,
        "log_magnitude": _mean((magnitude_made.log() - magnitude.log()).abs()),
    }


def _smooth_sqrt(squares: Tensor) -> Tensor:
    """Returns √squares, smoothed near 0, where its gradient would be infinite."""
    return (squares + _FLOOR**2).sqrt() - _FLOOR


def _compress(spectrum: Tensor) -> Tensor:
    """Returns |X|^½ · e^{i·phase}."""
    return compress(spectrum, 0.5, _QUIET)


def _mean(x: Tensor) -> Tensor:
    return x.flatten(1).mean(1)


@part("critic")
class SpectrogramCritic(nn.Module):
    """Scores patches of a sound's compressed complex spectrograms; real ones are to score high.

    It has a ``PatchDiscriminator`` for each window (in samples; hops are a quarter of it), as the multi-resolution
    discriminators of Jang et al. 2021 (UnivNet) and Défossez et al. 2022 (EnCodec). channels: channels of waveforms
    ``(B, channels, T)``. width, num_layers: arguments of each discriminator.
    """

    def __init__(
        self, channels: int = 1, windows: Sequence[int] = (512, 1024, 2048), width: int = 16, num_layers: int = 3
    ) -> None:
        super().__init__()
        self.transforms = nn.ModuleList(FourierFrames(window, window // 4) for window in windows)
        self.critics = nn.ModuleList(PatchDiscriminator(2 * channels, 2, width, num_layers) for _ in windows)

    def forward(self, sample: Tensor) -> Tensor:
        """Returns scores ``(B, 1, n)`` of waveforms ``(B, channels, T)``, concatenated over the windows."""
        scores = []
        for transform, critic in zip(self.transforms, self.critics, strict=True):
            spectrum = _compress(torch.view_as_real(transform.analyse(sample.float())))
            scores.append(critic(spectrum.permute(0, 1, 4, 3, 2).flatten(1, 2)).flatten(2))
        return torch.cat(scores, 2)

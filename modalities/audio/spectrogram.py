"""Complex spectrograms of compressed magnitude as latents, which are exactly invertible."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from modalities.audio.fourier import FourierFrames, check_iterations, check_waveform, normalise_phase
from modalities.audio.levels import limit_peaks
from scm_media.nn.channel_scale import Measured
from scm_media.parts import part

_FLOOR = 1e-5
"""Amplitude of a bin below which compression is linear, so that its gradient is finite: half a step of 16 bits."""
_TINY = 1e-30
PHASES = ("absolute", "advance")
_QUIETEST_DB = -80.0
"""Quieter bins, relative to the loudest, are raised no further: they hold rounding, not sound."""


def compress(spectrum: Tensor, exponent: float, floor: float = _FLOOR) -> Tensor:
    """Returns |X|^exponent · e^{i·phase} of spectra ``(*, 2)``, real and imaginary part; linear for |X| < floor."""
    if exponent == 1:
        return spectrum
    power = spectrum.square().sum(-1, keepdim=True).clamp(min=floor**2)
    return spectrum * power.pow((exponent - 1) / 2)


def expand(spectrum: Tensor, exponent: float) -> Tensor:
    """Returns spectra ``(*, 2)``; the inverse of ``compress``."""
    if exponent == 1:
        return spectrum
    power = spectrum.square().sum(-1, keepdim=True).clamp(min=_FLOOR ** (2 * exponent))
    return spectrum * power.pow((1 / exponent - 1) / 2)


@part("autoencoder")
class ComplexSpectrogram(Measured):
    """Maps waveforms to |X|^exponent · e^{i·phase} of the short-time Fourier transform X, and back exactly.

    channels: of waveforms ``(B, channels, T)``. window, hop: in samples; T must be a multiple of hop. Latents are
    ``(B, 2 · channels, window / 2, T / hop)``: real and imaginary part, frequency upwards, time. The bin at half the
    sampling rate, which is real like that at 0 Hz, is kept as the latter's imaginary part ("packed").
    exponent: of the magnitude, in (0, 1]; 1 is no compression.
    phase: "absolute", or "advance": how much further a bin's phase turned since the frame before than a tone at the
    bin's centre (Engel et al. 2019, GANSynth, section 2.1: "instantaneous frequency", here as the phase of the
    compressed magnitude, so that quiet bins do not matter). A steady tone is then the same in all frames, and a model
    need not count phases. The first frame and the bin at 0 Hz stay absolute.
    phase_iterations: of Griffin–Lim when decoding, from the latent's own phases. A network's phases do not quite agree
    from frame to frame, which is heard as a hum at the frames' rate; a few iterations remove most of it. The spectra
    of a waveform do not change.
    equalise: between one scale for a channel (0) and one for each of its frequencies (1), as the power of the bin's
    measured standard deviation. Bins more than 80 dB below the loudest are raised like one at 80 dB, so that bins that
    never change stay silent.

    ``fit`` measures the standard deviations; ``encode`` and ``decode`` raise ValueError before that, or before weights
    are loaded. Real and imaginary part share one scale and silence is zero: a turned phase is a turned latent.
    """

    deviation: Tensor

    def __init__(
        self,
        channels: int = 1,
        window: int = 512,
        hop: int = 256,
        exponent: float = 0.5,
        equalise: float = 0.5,
        sigma_data: float = 0.5,
        phase: str = "absolute",
        phase_iterations: int = 0,
    ) -> None:
        super().__init__()
        if phase not in PHASES:
            raise ValueError(f"autoencoder.network.phase must be one of {', '.join(PHASES)}, got {phase!r}")
        if channels < 1:
            raise ValueError(f"autoencoder.network.channels must be at least 1, got {channels}")
        if not 0 < exponent <= 1:
            raise ValueError(f"autoencoder.network.exponent must lie in (0, 1], got {exponent}")
        if not 0 <= equalise <= 1:
            raise ValueError(f"autoencoder.network.equalise must lie in [0, 1], got {equalise}")
        if not sigma_data > 0:
            raise ValueError(f"sigma_data of the autoencoder must be positive, got {sigma_data}")
        self.channels, self.exponent, self.equalise, self.sigma_data = channels, exponent, equalise, sigma_data
        check_iterations("phase_iterations", phase_iterations)
        self.phase, self.phase_iterations = phase, phase_iterations
        self.frames = FourierFrames(window, hop)
        self.num_bins = window // 2
        self.latent_channels = 2 * channels
        self.register_buffer("deviation", torch.ones(channels, self.num_bins))
        self.register_buffer("trained", torch.zeros((), dtype=torch.bool))

    def fit(self, samples: Iterable[Tensor]) -> None:
        """Measures the root mean square of each channel's bins over batches ``(B, channels, T)``, in float64.

        Raises ValueError when there is nothing to measure, when a value is not finite, and for a silent channel.
        """
        total, count = torch.zeros(self.channels, self.num_bins, dtype=torch.float64), 0
        for sample in samples:
            with torch.no_grad():
                spectrum = self._compress(sample.to(self.deviation.device))
            # Of real and imaginary part together: (B, K, C, F, 2) to (C, F).
            total += spectrum.double().square().mean(-1).sum((0, 2)).cpu()
            count += spectrum.shape[0] * spectrum.shape[2]
        if count == 0:
            raise ValueError("the autoencoder was given no samples to measure: check data.root and its reject counts")
        deviation = (total / count).sqrt()
        for channel, loudest in enumerate(deviation.amax(1).tolist()):
            if not 0 < loudest < float("inf"):
                raise ValueError(
                    f"the spectra of waveform channel {channel} have deviation {loudest}, expected a positive one: "
                    "check the data (silence? not finite?), or modality.channels"
                )
        self.deviation.copy_(deviation)
        self.trained.fill_(True)

    def encode(self, sample: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Returns latents ``(B, 2 · channels, window / 2, T / hop)``; the generator is not used."""
        spectrum = self._compress(sample)
        if self.phase == "advance":
            spectrum = torch.view_as_real(self._subtract_phase(torch.view_as_complex(spectrum)))
        spectrum = spectrum * self._gain(spectrum)[:, None, :, None]
        return spectrum.permute(0, 1, 4, 3, 2).flatten(1, 2).contiguous()

    def decode(self, latent: Tensor) -> Tensor:
        """Returns waveforms ``(B, channels, T)`` in [-1, 1], with the level lowered where the peak is higher."""
        return limit_peaks(self.waveform(latent))

    def waveform(self, latent: Tensor) -> Tensor:
        """Returns waveforms ``(B, channels, T)``, not clipped, so that gradients pass everywhere."""
        self._check_latent(latent)
        latent = latent if latent.dtype == torch.float64 else latent.float()
        spectrum = latent.unflatten(1, (self.channels, 2)).permute(0, 1, 4, 3, 2)
        spectrum = expand(spectrum / self._gain(spectrum)[:, None, :, None], self.exponent)
        spectrum = torch.view_as_complex(spectrum.contiguous())
        if self.phase == "advance":
            spectrum = self._accumulate_phase(spectrum)
        spectrum = _unpack(spectrum)
        if not self.phase_iterations:
            return self.frames.synthesise(spectrum)
        return self.frames.griffin_lim(spectrum.abs(), self.phase_iterations, normalise_phase(spectrum))

    def latent_shape(self, sample_shape: Sequence[int]) -> tuple[int, ...]:
        """Returns ``(2C, window / 2, T / hop)``; raises ValueError where the hop does not divide T."""
        return (self.latent_channels, self.num_bins, self.frames.num_frames(sample_shape[-1]))

    def sample_shape(self, latent_shape: Sequence[int]) -> tuple[int, ...]:
        """Returns ``(C, T)``, a hop for each frame."""
        return (self.channels, latent_shape[-1] * self.frames.hop)

    def latent_mask(self, mask: Tensor) -> Tensor:
        """Returns ``(B, 1, window / 2, T / hop)``: one where all of a frame's own hop of ``(B, 1, T)`` is one."""
        return self.frames.mask(mask).repeat(1, 1, self.num_bins, 1)

    def _compress(self, sample: Tensor) -> Tensor:
        """Returns spectra of compressed magnitude, not scaled, ``(B, channels, T / hop, window / 2, 2)``."""
        check_waveform(sample, self.channels)
        self.frames.num_frames(sample.shape[-1])
        sample = sample if sample.dtype == torch.float64 else sample.float()
        return compress(torch.view_as_real(_pack(self.frames.analyse(sample))), self.exponent)

    def _subtract_phase(self, spectrum: Tensor) -> Tensor:
        """Returns spectra ``(*, K, window / 2)`` with phases relative to the frame before and the bin's rotation."""
        before = spectrum[..., :-1, 1:]
        loudness = before.abs()
        unit = torch.where(loudness > 0, before / loudness.clamp(min=_TINY), torch.ones_like(before))
        turned = spectrum.clone()
        angles = self._bin_angles(spectrum.device)
        rotation = torch.polar(torch.ones_like(angles), angles).to(spectrum.dtype)
        turned[..., 1:, 1:] = spectrum[..., 1:, 1:] * (unit * rotation).conj()
        return turned

    def _accumulate_phase(self, spectrum: Tensor) -> Tensor:
        """Returns the inverse of ``_subtract_phase``: phases summed over frames, anew after a bin was exactly zero."""
        further = spectrum[..., 1:].angle().double()
        own = self._bin_angles(further.device)
        silent = spectrum[..., 1:].abs() == 0
        # What is added at each frame but the first; after silence the frame before counts as phase 0.
        phase = further + torch.cat([torch.zeros_like(further[..., :1, :]), own.expand_as(further)[..., 1:, :]], -2)
        total = phase.masked_fill(silent, 0).cumsum(-2)
        frame = torch.arange(phase.shape[-2], device=phase.device)[:, None]
        last = torch.where(silent, frame, -1).cummax(-2).values
        start = torch.where(last >= 0, total.gather(-2, last.clamp(min=0)), 0)
        loudness = spectrum[..., 1:].abs()
        angle = torch.remainder(total - start, 2 * math.pi).to(loudness.dtype)
        return torch.cat([spectrum[..., :1], torch.polar(loudness, angle)], -1)

    def _bin_angles(self, device: torch.device) -> Tensor:
        """Returns ω hop, in radians, of the bins from the second on, ``(window / 2 - 1,)``, in float64."""
        bins = torch.arange(1, self.num_bins, dtype=torch.float64, device=device)
        return torch.remainder(bins * self.frames.hop, self.frames.window) * (2 * math.pi / self.frames.window)

    def _gain(self, like: Tensor) -> Tensor:
        """Returns the factors ``(channels, window / 2)`` that scale compressed spectra to sigma_data."""
        self.require_trained()
        deviation = self.deviation.to(like.dtype)
        quietest = deviation.amax(1, keepdim=True) * 10 ** (_QUIETEST_DB / 20 * self.exponent)
        raised = deviation.clamp(min=quietest).pow(-self.equalise)
        return self.sigma_data * raised / (deviation * raised).square().mean(1, keepdim=True).sqrt()

    def _check_latent(self, latent: Tensor) -> None:
        if latent.ndim != 4 or tuple(latent.shape[1:3]) != (self.latent_channels, self.num_bins):
            raise ValueError(
                f"the autoencoder takes latents (batch, {self.latent_channels}, {self.num_bins}, frames), got a tensor "
                f"of shape {tuple(latent.shape)}: check autoencoder.network.window and channels"
            )


def _pack(spectrum: Tensor) -> Tensor:
    """Returns bins ``(*, n)`` of spectra ``(*, n + 1)``: the real last one is the imaginary part of the first."""
    first = torch.complex(spectrum[..., :1].real, spectrum[..., -1:].real)
    return torch.cat([first, spectrum[..., 1:-1]], -1)


def _unpack(packed: Tensor) -> Tensor:
    """Returns spectra ``(*, n + 1)``; the inverse of ``_pack``."""
    first, last = packed[..., :1].real, packed[..., :1].imag
    return torch.cat([torch.complex(first, torch.zeros_like(first)), packed[..., 1:], last.to(packed.dtype)], -1)

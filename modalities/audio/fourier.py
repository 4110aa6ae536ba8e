"""The short-time Fourier transform with exactly one frame for each hop, its inverse, and Griffin–Lim."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

LONGEST_WINDOW = 1 << 14
"""Samples of the longest window; a third of a second at 48 kHz."""
MAX_ITERATIONS = 1000
"""The most iterations of Griffin–Lim, and of the least squares before it; nothing changes beyond."""


def check_iterations(name: str, value: int) -> None:
    """Raises ValueError for a number of iterations that is negative or beyond ``MAX_ITERATIONS``."""
    if not 0 <= value <= MAX_ITERATIONS:
        raise ValueError(f"autoencoder.network.{name} must lie in 0 … {MAX_ITERATIONS}, got {value}")


class FourierFrames(nn.Module):
    """Transforms waveforms to the spectra of overlapping Hann-windowed frames and back.

    window, hop: in samples. A waveform is mirrored at both ends over ``margin`` = (window - hop) / 2 samples, so that
    one of K · hop samples has exactly K frames; zeros there would be a jump, heard in all bins of the outermost frames.
    The window is scaled to unit energy: a bin of white noise of standard deviation s has E|X|² = s².
    Raises ValueError for hops that do not fit the window.
    """

    taper: Tensor

    def __init__(self, window: int, hop: int) -> None:
        super().__init__()
        if not 4 <= window <= LONGEST_WINDOW or window % 2:
            raise ValueError(
                f"autoencoder.network.window must be an even number of samples in 4 … {LONGEST_WINDOW}, got {window}"
            )
        if not 1 <= hop <= window // 2 or (window - hop) % 2:
            raise ValueError(
                f"autoencoder.network.hop must be even or odd as the window is, and at most half of it "
                f"({window // 2}), got {hop}"
            )
        self.window, self.hop, self.margin = window, hop, (window - hop) // 2
        taper = torch.hann_window(window, periodic=True, dtype=torch.float64)
        # Not saved: it follows from the configuration.
        self.register_buffer("taper", (taper / taper.square().sum().sqrt()).float(), persistent=False)

    def analyse(self, waveform: Tensor) -> Tensor:
        """Returns complex spectra ``(*, K, window / 2 + 1)`` of waveforms ``(*, K · hop)``, longer than the margin."""
        padded = functional.pad(waveform.reshape(-1, waveform.shape[-1]), (self.margin, self.margin), mode="reflect")
        frames = padded.unfold(-1, self.window, self.hop) * self.taper.to(waveform.dtype)
        return torch.fft.rfft(frames.reshape(*waveform.shape[:-1], *frames.shape[1:]))

    def num_frames(self, num_samples: int) -> int:
        """Returns the number of frames of a waveform. Raises ValueError where the hop does not divide T."""
        if num_samples % self.hop or num_samples <= self.margin:
            raise ValueError(
                f"waveforms of {num_samples} samples cannot be encoded: the autoencoder needs a multiple of its hop, "
                f"{self.hop}, and more than {self.margin} samples; set modality.multiple={self.hop}"
            )
        return num_samples // self.hop

    def mask(self, mask: Tensor) -> Tensor:
        """Returns ``(B, 1, 1, K)``: one where all of a frame's own hop of a mask ``(B, 1, K · hop)`` is one."""
        num_frames = self.num_frames(mask.shape[-1])
        return mask.reshape(len(mask), 1, 1, num_frames, self.hop).amin(-1)

    def synthesise(self, spectrum: Tensor) -> Tensor:
        """Returns the waveforms ``(*, K · hop)`` whose spectra come nearest to ``(*, K, window / 2 + 1)``.

        It is the overlap-add divided by the summed squared window (Griffin & Lim 1984, equation 6), the exact inverse
        of ``analyse``, at the edges too.
        """
        frames = torch.fft.irfft(spectrum, n=self.window)
        taper = self.taper.to(frames.dtype)
        energy = self._overlap_add(taper.square().expand(frames.shape[-2], -1))
        return self._overlap_add(frames * taper) / energy

    def griffin_lim(
        self, magnitudes: Tensor, num_iterations: int, phases: Tensor | None = None, momentum: float = 0.99
    ) -> Tensor:
        """Returns waveforms ``(*, K · hop)`` whose spectra have about the magnitudes ``(*, K, window / 2 + 1)``.

        The fast algorithm of Perraudin, Balazs & Søndergaard 2013 projects in turn onto the spectra of waveforms and
        onto those of these magnitudes, and overshoots by the momentum. phases: complex numbers of unit size to start
        from, by default random ones that are the same for all waveforms; a waveform's own phases are a fixed point.
        (``torchaudio.functional.griffinlim`` takes no phases to start from.)
        """
        if phases is None:
            phases = self._random_phases(magnitudes)
        before: Tensor | None = None
        for _ in range(num_iterations):
            projected = self.analyse(self.synthesise(magnitudes * phases))
            phases = normalise_phase(projected if before is None else projected + momentum * (projected - before))
            before = projected
        return self.synthesise(magnitudes * phases)

    def _random_phases(self, magnitudes: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        angles = 2 * math.pi * torch.rand(magnitudes.shape[-2:], generator=generator, dtype=torch.float64)
        phases = torch.polar(torch.ones_like(angles), angles).to(magnitudes.device)
        return phases.to(torch.complex128 if magnitudes.dtype == torch.float64 else torch.complex64)

    def _overlap_add(self, frames: Tensor) -> Tensor:
        """Returns the sums ``(*, K · hop)`` of frames ``(*, K, window)`` a hop apart, without the margins."""
        num_hops, num_frames = math.ceil(self.window / self.hop), frames.shape[-2]
        chunks = functional.pad(frames, (0, num_hops * self.hop - self.window)).unflatten(-1, (num_hops, self.hop))
        total = frames.new_zeros(*frames.shape[:-2], num_frames + num_hops - 1, self.hop)
        for shift in range(num_hops):
            total[..., shift : shift + num_frames, :] += chunks[..., shift, :]
        return total.flatten(-2)[..., self.margin : self.margin + num_frames * self.hop]


def normalise_phase(spectrum: Tensor) -> Tensor:
    """Returns complex numbers of size 1 with the phases of a spectrum; zero where it is zero."""
    parts = torch.view_as_real(spectrum)
    return torch.view_as_complex(parts * parts.square().sum(-1, keepdim=True).clamp(min=1e-24).rsqrt())


def check_waveform(sample: Tensor, channels: int) -> None:
    """Raises ValueError for a tensor that is no batch of waveforms ``(B, channels, T)``."""
    if sample.ndim != 3 or sample.shape[1] != channels:
        raise ValueError(
            f"the autoencoder takes waveforms (batch, {channels}, samples), got a tensor of shape "
            f"{tuple(sample.shape)}: check modality.channels against autoencoder.network.channels"
        )

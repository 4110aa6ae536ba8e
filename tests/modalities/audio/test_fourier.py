"""Overlapping frames: energy, least squares, exact inverse for every hop."""

from __future__ import annotations

import pytest
import torch

from modalities.audio.fourier import FourierFrames

HOPS = [(512, 256), (512, 128), (512, 200), (64, 10), (6, 2)]


def frames(window: int, hop: int) -> FourierFrames:
    return FourierFrames(window, hop).double()


def inner(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """The inner product of two real signals by their one-sided spectra: bins between the ends count twice."""
    weight = torch.full((one.shape[-1],), 2.0, dtype=torch.float64)
    weight[0] = weight[-1] = 1
    return (weight * (one.conj() * other).real).sum()


@pytest.mark.parametrize(("window", "hop"), HOPS)
def test_every_sample_comes_back_the_edges_too(window, hop):
    waveform = torch.randn(2, 3, 7 * hop, dtype=torch.float64)
    transform = frames(window, hop)
    spectrum = transform.analyse(waveform)
    assert spectrum.shape == (2, 3, 7, window // 2 + 1)
    assert (transform.synthesise(spectrum) - waveform).abs().max() < 1e-12


def quiet_ends(transform: FourierFrames, length: int) -> torch.Tensor:
    """Noise that is silent over the margins, so that there is nothing to be mirrored."""
    waveform = torch.randn(length, dtype=torch.float64)
    waveform[: transform.margin + 1] = waveform[length - transform.margin - 1 :] = 0
    return waveform


@pytest.mark.parametrize(("window", "hop"), HOPS)
def test_energy_is_that_of_the_windows_over_each_sample(window, hop):
    """Parseval: Σ|X|² over both halves of the spectrum, by the window's length, is Σ x² · Σ w²."""
    transform = frames(window, hop)
    waveform = quiet_ends(transform, 12 * hop)
    spectrum = transform.analyse(waveform)
    energy = transform._overlap_add(transform.taper.square().expand(12, -1))
    assert inner(spectrum, spectrum).item() / window == pytest.approx((waveform.square() * energy).sum().item())


@pytest.mark.parametrize(("window", "hop"), HOPS)
def test_the_inverse_of_what_is_no_spectrum_is_the_nearest_waveform(window, hop):
    """The remainder is at right angles to the spectra of all waveforms (Griffin & Lim 1984, equation 6)."""
    transform = frames(window, hop)
    spectrum = torch.randn(20, window // 2 + 1, dtype=torch.complex128)
    spectrum[:, [0, -1]] = spectrum[:, [0, -1]].real.to(spectrum.dtype)
    spectrum[:8] = spectrum[-8:] = 0
    left = spectrum - transform.analyse(transform.synthesise(spectrum))
    assert inner(left, left) > 1
    for _ in range(3):
        other = transform.analyse(quiet_ends(transform, 20 * hop))
        assert abs(inner(left, other).item()) < 1e-9 * inner(other, other).item()


def test_a_steady_tone_is_as_clear_in_the_outermost_frames_as_within():
    tone = torch.cos(2 * torch.pi * 40 / 512 * torch.arange(5120, dtype=torch.float64))
    far = frames(512, 256).analyse(tone).abs()[:, 80:].amax(1)
    assert far.max() < 1e-2 * frames(512, 256).analyse(tone).abs().max()


def test_white_noise_has_its_own_deviation_in_each_bin():
    spectrum = frames(512, 256).analyse(0.3 * torch.randn(200, 2560, dtype=torch.float64))
    power = spectrum.abs().square().mean((0, 1))
    assert torch.allclose(power, torch.full_like(power, 0.09), rtol=0.2)
    assert power.mean().item() == pytest.approx(0.09, rel=0.02)


def test_what_no_frame_fits_is_refused():
    transform = FourierFrames(2048, 256)
    assert transform.num_frames(1024) == 4
    with pytest.raises(ValueError, match=r"768 samples .* more than 896"):
        transform.num_frames(768)

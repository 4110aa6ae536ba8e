"""Phases from peaks: a steady partial goes on turning, and the bins of one peak agree."""

from __future__ import annotations

import math

import pytest
import torch

from modalities.audio.fourier import FourierFrames
from modalities.audio.phases import peak_phases
from tests.modalities.audio.signals import RATE, noise, notes

FRAMES = FourierFrames(1024, 256)


def sines(*hertz: float, length: int = 16384) -> torch.Tensor:
    time = torch.arange(length, dtype=torch.float64) / RATE
    return sum(0.3 * torch.sin(2 * math.pi * frequency * time + frequency) for frequency in hertz)[None, None]


def convergence(magnitudes: torch.Tensor, waveform: torch.Tensor) -> float:
    """Decibels by which the magnitudes asked for stand above what a waveform's differ from them, without the ends."""
    inner = slice(4, -4)
    difference = (FRAMES.analyse(waveform).abs() - magnitudes)[..., inner, :]
    return 20 * math.log10((magnitudes[..., inner, :].norm() / difference.norm()).item())


@pytest.mark.parametrize("hertz", [(440.0,), (447.3,), (523.25, 1318.5), (220.0, 440.0, 660.0, 880.0)])
def test_steady_partials_come_back_without_an_iteration(hertz):
    magnitudes = FRAMES.analyse(sines(*hertz)).abs()
    found = FRAMES.synthesise(magnitudes * peak_phases(magnitudes, FRAMES.hop))
    assert convergence(magnitudes, found) > 25
    assert convergence(magnitudes, FRAMES.griffin_lim(magnitudes, 0)) < 5, "random phases do not"


def test_a_partial_turns_by_its_own_frequency_not_its_bins():
    hertz = 447.3
    phases = peak_phases(FRAMES.analyse(sines(hertz)).abs(), FRAMES.hop)[0, 0, 4:-4]
    peak = round(hertz * 1024 / RATE)
    turned = (phases[1:, peak] / phases[:-1, peak]).angle().mean()
    wanted = math.remainder(2 * math.pi * hertz * FRAMES.hop / RATE, 2 * math.pi)
    assert turned.item() == pytest.approx(wanted, abs=0.03)
    assert math.remainder(2 * math.pi * peak * FRAMES.hop / 1024, 2 * math.pi) != pytest.approx(wanted, abs=0.2)


def test_the_bins_of_a_peak_agree_in_the_middle_of_the_window():
    phases = peak_phases(FRAMES.analyse(sines(700.0, 2500.0)).abs(), FRAMES.hop)[0, 0, 20]
    middle = phases * torch.polar(
        torch.ones(513, dtype=torch.float64), math.pi * torch.arange(513, dtype=torch.float64)
    )
    for hertz in (700.0, 2500.0):
        peak = round(hertz * 1024 / RATE)
        assert (middle[peak - 2 : peak + 3] - middle[peak]).abs().max() < 1e-6


def test_few_iterations_from_the_peaks_do_more_than_many_from_random_phases():
    magnitudes = FRAMES.analyse(notes()).abs()
    peaks = FRAMES.griffin_lim(magnitudes, 4, peak_phases(magnitudes, FRAMES.hop))
    assert convergence(magnitudes, peaks) > convergence(magnitudes, FRAMES.griffin_lim(magnitudes, 32)) + 3


def test_phases_are_of_unit_size_whatever_the_magnitudes():
    flat, silent = torch.ones(2, 1, 5, 9), torch.zeros(2, 1, 5, 9)
    for magnitudes in (flat, silent, FRAMES.analyse(noise(length=2048)).abs()):
        phases = peak_phases(magnitudes, 4)
        assert phases.shape == magnitudes.shape
        assert (phases.abs() - 1).abs().max() < 1e-6


def test_a_clip_has_the_same_phases_alone_and_in_a_batch():
    magnitudes = FRAMES.analyse(notes()).abs()
    assert torch.equal(peak_phases(magnitudes[2:3], 256), peak_phases(magnitudes, 256)[2:3])
    assert torch.equal(peak_phases(magnitudes[2, 0], 256), peak_phases(magnitudes, 256)[2, 0])

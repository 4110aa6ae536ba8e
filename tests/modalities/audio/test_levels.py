"""Loudness against the standard's own figures."""

from __future__ import annotations

import math

import pytest
import torch

from modalities.audio.levels import k_weighting, loudness


def sine(rate, seconds, decibels, frequency=1000.0, channels=2):
    wave = 10 ** (decibels / 20) * torch.sin(2 * math.pi * frequency * torch.arange(round(rate * seconds)) / rate)
    return wave.expand(channels, -1)


@pytest.mark.parametrize("rate", [16000, 22050, 44100, 48000])
def test_a_sine_of_full_scale_in_one_channel_is_minus_3_01(rate):
    # BS.1770-4, annex 1; at low rates the shelf, which is exact at 1682 Hz, is a little off elsewhere.
    assert loudness(sine(rate, 2.0, 0, 997, channels=1), rate) == pytest.approx(-3.01, abs=0.05)


@pytest.mark.parametrize("parts", [[(20, -33)], [(10, -36), (60, -23), (10, -36)]], ids=["case 2", "case 3"])
def test_the_signals_of_ebu_tech_3341(parts):
    rate, expected = 16000, max(decibels for _, decibels in parts)
    signal = torch.cat([sine(rate, seconds, decibels) for seconds, decibels in parts], dim=1)
    assert loudness(signal, rate) == pytest.approx(expected, abs=0.1)  # the softer ends are gated


def test_blocks_below_the_absolute_gate_do_not_count():
    signal = torch.cat([sine(16000, 10, -68), sine(16000, 10, -73)], dim=1)  # within 10 LU of one another
    assert loudness(signal, 16000) == pytest.approx(-68, abs=0.1)


def test_silence_has_none_and_less_than_a_block_is_one_block():
    assert loudness(torch.zeros(1, 22050), 22050) == -math.inf
    assert loudness(sine(22050, 0.1, -20), 22050) == pytest.approx(-20, abs=0.3)
    assert loudness(torch.zeros(1, 1), 22050) == -math.inf


def test_the_weighting_is_the_standards_own_filters_at_48_khz():
    expected = [
        ([1.53512485958697, -2.69169618940638, 1.19839281085285], [1.0, -1.69065929318241, 0.73248077421585]),
        ([1.0, -2.0, 1.0], [1.0, -1.99004745483398, 0.99007225036621]),
    ]
    for (zeros, poles), (wanted_zeros, wanted_poles) in zip(k_weighting(48000), expected, strict=True):
        assert (zeros / poles[0]).tolist() == pytest.approx(wanted_zeros, abs=1e-9)
        assert (poles / poles[0]).tolist() == pytest.approx(wanted_poles, abs=1e-9)


def test_loud_sounds_are_not_clipped_by_the_weighting():
    soft, loud = (loudness(sine(48000, 1.0, decibels, 3000), 48000) for decibels in (-30, 0))
    assert loud - soft == pytest.approx(30, abs=1e-3)

"""Pitch, onsets, loudness and centroid of sounds for which they are known."""

from __future__ import annotations

import importlib
import math
import time
from pathlib import Path

import pytest
import torch

from modalities.audio import AudioModality
from modalities.audio.pitch import estimate_pitches
from modalities.audio.tones import LOWEST_PITCH, SOUND_KINDS, TonesDataset

RATE = 22050
MODALITY = AudioModality()


def hertz(pitch: float) -> float:
    return 440 * 2 ** ((pitch - 69) / 12)


def note(pitch: float, partials: int = 10, rate: int = RATE, seconds: float = 1.0) -> torch.Tensor:
    """A steady note ``(1, T)``: partials of amplitude 1 / k below half the rate."""
    places = torch.arange(round(seconds * rate), dtype=torch.float64) / rate
    heard = [k for k in range(1, partials + 1) if k * hertz(pitch) < rate / 2]
    wave = sum(torch.sin(2 * math.pi * k * hertz(pitch) * places + k * k) / k for k in heard)
    return (0.2 * wave).float()[None]


def clicks(num: int, rate: int = RATE, seconds: float = 2.0) -> torch.Tensor:
    """Clicks ``(1, T)`` of one sample, evenly spaced, the first at the start."""
    wave = torch.zeros(1, round(seconds * rate))
    wave[0, (torch.arange(num) * wave.shape[1]) // max(num, 1)] = 0.8
    return wave


@pytest.mark.parametrize("partials", [1, 10])
def test_notes_of_the_whole_piano_have_their_pitch(partials):
    pitches = list(range(21, 109, 3))
    found = MODALITY.statistics(torch.stack([note(pitch, partials) for pitch in pitches]))["pitch"]
    assert found.tolist() == pytest.approx(pitches, abs=0.05)


@pytest.mark.parametrize(("rate", "seconds"), [(8000, 0.26), (16000, 1.0), (44100, 0.3)])
def test_pitches_are_found_at_other_rates_and_in_short_sounds(rate, seconds):
    sounds = torch.stack([note(pitch, 10, rate, seconds) for pitch in (36, 57.3, 84)])
    found = AudioModality(sample_rate=rate, channels=1).statistics(sounds)["pitch"]
    assert found.tolist() == pytest.approx([36, 57.3, 84], abs=0.05)


@pytest.mark.slow
def test_the_pitch_is_that_of_the_much_slower_pyin(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[3] / "benchmarks"))
    pyin = importlib.import_module("note_figures").estimate_pitch
    sounds = torch.stack([note(pitch) for pitch in (31.0, 60.4, 88.0)])
    found = MODALITY.statistics(sounds)["pitch"].tolist()
    assert found == pytest.approx([pyin(sound[0].numpy(), RATE) for sound in sounds], abs=0.25)


def test_a_shift_by_three_semitones_moves_the_mean_by_three():
    data = TonesDataset(modality=MODALITY, num=96)
    batch = data.batch(range(96))
    kinds = [SOUND_KINDS[kind] for kind in batch.labels["kind"].tolist()]
    kept = [place for place, kind in enumerate(kinds) if kind in ("tone", "pluck")]
    asked = batch.labels["pitch"][kept] + LOWEST_PITCH
    found = MODALITY.statistics(batch.sample[kept])["pitch"]
    assert (found - asked).abs().max() < 0.5, "within 50 cents"
    # Played at another rate, the same samples are higher by 12 log2 of the ratio.
    higher = AudioModality(sample_rate=round(RATE * 2 ** (3 / 12))).statistics(batch.sample[kept])["pitch"]
    assert (higher.mean() - found.mean()).item() == pytest.approx(3, abs=0.05)
    noise = MODALITY.statistics(torch.randn(4, 1, RATE, generator=torch.Generator().manual_seed(0)) * 0.1)
    assert noise["pitch"].isnan().all()


def test_frames_without_a_pitch_do_not_count():
    wave = note(64.0)[0]
    wave[: RATE // 3] = 0
    wave[RATE // 3 : RATE // 2] = 0.1 * torch.randn(RATE // 2 - RATE // 3, generator=torch.Generator().manual_seed(0))
    frames = estimate_pitches(wave, RATE)
    assert frames[:10].isnan().all() and not frames[-10:].isnan().any()
    assert MODALITY.statistics(wave[None, None])["pitch"].item() == pytest.approx(64, abs=0.05)
    few = wave.clone()
    few[RATE // 2 + 1200 :] = 0
    assert 0 < (~estimate_pitches(few, RATE).isnan()).sum() < 3
    assert MODALITY.statistics(few[None, None])["pitch"].isnan().all(), "two frames are no note"


@pytest.mark.parametrize("rate", [8000, RATE, 44100])
@pytest.mark.parametrize("num", [0, 1, 2, 5, 8])
def test_a_sound_has_as_many_onsets_as_clicks(rate, num):
    modality = AudioModality(sample_rate=rate)
    assert modality.statistics(clicks(num, rate)[None])["onsets"].tolist() == [num]


def test_notes_are_onsets_also_over_noise_and_held_notes_and_ends_are_not():
    background = 0.002 * torch.randn(1, 2 * RATE, generator=torch.Generator().manual_seed(0))
    struck = background.clone()
    for place, pitch in enumerate((60, 67, 64, 72)):
        first = (place * 2 + 1) * RATE // 4
        wave = note(pitch)[0, : 2 * RATE - first]
        struck[0, first : first + len(wave)] += wave * torch.exp(-torch.arange(len(wave)) / 2000)
    held = torch.nn.functional.pad(note(57.0, seconds=1.0), (RATE, 0))
    found = MODALITY.statistics(torch.stack([background, struck, held]))
    assert found["onsets"].tolist() == [1, 5, 1], "the noise begins at once, and so has an onset of its own"


def test_loudness_is_the_power_in_decibels():
    sine = note(69.0, 1)[None]
    found = MODALITY.statistics(torch.cat([sine, sine / 2, sine * 0 + 0.1, 1e-7 * sine]))["loudness"]
    full = 20 * math.log10(0.2 / 2**0.5)
    assert found.tolist() == pytest.approx([full, full - 6.0206, -20, -100], abs=0.01)
    one_side = torch.cat([sine, 0 * sine], 1)
    stereo = AudioModality(channels=2).statistics(one_side)["loudness"].item()
    assert stereo == pytest.approx(full - 3.0103, abs=0.01), "half the power"


def test_the_centroid_is_the_middle_of_the_spectrum():
    noise = 0.1 * torch.randn(1, 1, RATE, generator=torch.Generator().manual_seed(0))
    sounds = torch.cat([note(69.0, 1)[None], note(93.0, 1)[None], note(69.0)[None], noise])
    found = MODALITY.statistics(sounds)["centroid"].tolist()
    # Ten partials k of amplitudes 1 / k have their mean at 10 / (1 + 1/2 + … + 1/10).
    expected = [440, 1760, 440 * 10 / sum(1 / k for k in range(1, 11)), RATE / 4]
    assert found == pytest.approx(expected, rel=0.05)


def test_silence_has_no_pitch_no_onsets_and_no_centroid():
    found = MODALITY.statistics(torch.stack([torch.zeros(1, RATE), 1e-3 * note(60.0)]))
    assert found["pitch"].isnan().all() and found["centroid"].isnan().all()
    assert found["onsets"].tolist() == [0, 0]
    assert found["loudness"][0] == -100


def test_figures_are_those_of_the_mono_mix_and_of_each_sound_alone():
    left, right = note(60.0, 1), note(60.0, 1) + clicks(4, seconds=1.0)
    stereo = AudioModality(channels=2).statistics(torch.cat([left, right])[None])
    mono = MODALITY.statistics((left + right)[None] / 2)
    for name in ("pitch", "onsets", "centroid"):
        assert stereo[name].item() == pytest.approx(mono[name].item(), rel=1e-5)
    batch = MODALITY.statistics(torch.stack([left, right, 0 * left]))
    for name, figure in MODALITY.statistics(right[None]).items():
        assert figure.shape == (1,) and figure.dtype == torch.float32
        assert figure.item() == batch[name][1].item()
    assert set(batch) == set(MODALITY.statistic_units)


def test_a_sound_of_fifty_samples_has_figures():
    found = MODALITY.statistics(torch.rand(2, 1, 50, generator=torch.Generator().manual_seed(0)))
    assert found["pitch"].isnan().all() and found["onsets"].tolist() == [1, 1]
    assert found["centroid"].isfinite().all() and (found["loudness"] > -10).all()


def test_a_second_of_sound_takes_a_few_milliseconds():
    sounds = torch.stack([note(pitch) for pitch in range(50, 70)])
    MODALITY.statistics(sounds[:1])
    began = time.process_time()
    MODALITY.statistics(sounds)
    assert time.process_time() - began < 20 * 0.03

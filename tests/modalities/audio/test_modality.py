"""Sounds brought to a recipe's length and channels: crops, padding and its mask, silence cut off, levels."""

from __future__ import annotations

import inspect
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from modalities.audio import AudioModality
from modalities.audio.levels import loudness
from scm_media.build import build
from scm_media.testing import check_modality
from tests.modalities.audio.files import by_libsndfile, sixteen, tone, wav

ROOT = Path(__file__).parents[3]


def ramp(length, channels=1):
    """Each sample tells its own place: k / 2^16."""
    return (torch.arange(length) / 2**16).expand(channels, -1)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("suffix", "tolerance"), [(".wav", 1e-4), (".flac", 1e-4), (".ogg", 0.01), (".mp3", 0.01)])
@pytest.mark.parametrize("channels", [1, 2])
def test_conforms_in_every_format(tmp_path, suffix, tolerance, channels):
    sample = torch.from_numpy(tone(22050, 1.0, channels=channels).T.copy())
    check_modality(AudioModality(channels=channels), tmp_path, sample, suffix, tolerance)


def test_the_configuration_names_every_key_with_its_default():
    config = yaml.safe_load((ROOT / "configs" / "modality" / "audio.yaml").read_text(encoding="utf-8"))
    defaults = {key: each.default for key, each in inspect.signature(AudioModality).parameters.items()}
    assert config == {"_target_": "modalities.audio.modality.AudioModality", **defaults}
    assert build(config, "modality").shape() == (1, 22050)


@pytest.mark.parametrize(
    ("duration", "rate", "multiple", "expected"),
    [
        (1.0, 22050, 1, 22050),
        (1.0, 22050, 256, 22016),  # 86.13 frames
        (1.0, 22050, 128, 22016),  # 172.27 frames
        (1.51, 16000, 512, 24064),  # 47.19 frames
        (0.5, 22050, 256, 11008),  # 43.07 frames
        (0.001, 22050, 256, 256),  # never none
        (6.0, 44100, 1024, 264192),  # 258.4 frames
    ],
)
def test_a_clip_is_the_nearest_whole_number_of_frames(duration, rate, multiple, expected):
    modality = AudioModality(sample_rate=rate, duration=duration, multiple=multiple, channels=2)
    assert modality.shape() == modality.shape(duration=duration) == (2, expected)
    assert modality.size_options["duration"].default == duration
    assert modality.size_options["duration"].unit == "seconds"
    other = AudioModality(sample_rate=rate, duration=3.0, multiple=multiple, channels=2)
    assert other.shape(duration=duration) == (2, expected)


def test_other_extents_and_durations_are_refused():
    with pytest.raises(ValueError, match="sounds have no size; they have: duration"):
        AudioModality().shape(size=3)
    for duration in (0, -1, math.inf, math.nan):
        with pytest.raises(ValueError, match="duration must be a positive number of seconds"):
            AudioModality().shape(duration=duration)
        with pytest.raises(ValueError, match="duration must be a positive number of seconds"):
            AudioModality(duration=duration)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"sample_rate": 0}, "modality.sample_rate must lie in 1 … 384000 Hz, got 0"),
        ({"channels": 3}, "modality.channels must be 1"),
        ({"multiple": 0}, "modality.multiple must be at least 1"),
        ({"crop": "end"}, "modality.crop must be one of random, start, centre, got 'end'"),
        ({"padding": "zeros"}, "modality.padding must be one of silence, masked"),
        ({"bits": 8}, "modality.bits must be one of 16, 24, 32"),
        ({"normalise": "rms"}, "modality.normalise must be null, peak or loudness, got 'rms'"),
        ({"level": -3.0}, "modality.level must be at most 0, and needs modality.normalise"),
        ({"normalise": "peak", "level": 3.0}, "modality.level must be at most 0"),
        ({"trim": 0.0}, "modality.trim must be positive"),
        ({"shortest": -1.0}, "modality.shortest must be a number of seconds, at least 0"),
        ({"gain": -1.0}, "modality.gain must lie in 0 … 40 dB, got -1.0"),
    ],
)
def test_keys_that_make_no_sense_are_named(keys, words):
    with pytest.raises(ValueError, match=words):
        AudioModality(**keys)


def test_crops_are_where_the_recipe_says():
    short = {"sample_rate": 1000, "duration": 0.1}
    sample = ramp(1001)
    assert AudioModality(**short, crop="start").transform(sample)[0, 0] == 0
    assert AudioModality(**short, crop="centre").transform(sample)[0, 0] == 450 / 2**16
    random = AudioModality(**short, crop="random")
    assert random.augments
    assert not AudioModality(crop="start").augments
    assert random.transform(sample)[0, 0] == 450 / 2**16
    starts = torch.stack([random.transform(sample, generator(seed))[0, 0] for seed in range(600)]) * 2**16
    assert starts.min() < 10
    assert starts.max() > 890
    assert abs(starts.mean().item() - 450) < 40
    whole = random.transform(ramp(100), generator())
    assert torch.equal(whole, ramp(100))


def test_the_last_place_is_drawn_too():
    modality = AudioModality(sample_rate=1000, duration=0.1)
    found = {int(modality.transform(ramp(102), generator(seed))[0, 0] * 2**16) for seed in range(40)}
    assert found == {0, 1, 2}


def test_a_shorter_sound_is_followed_by_silence_and_masked_where_asked(tmp_path):
    path = tmp_path / "a.wav"
    path.write_bytes(wav(sixteen(tone(22050, 0.25))))
    plain, masked = (AudioModality(duration=0.5, padding=padding) for padding in ("silence", "masked"))
    sample, valid = plain.read_transformed(path)
    assert valid is None
    again, mask = masked.read_transformed(path)
    num = round(0.25 * 22050)
    assert torch.equal(sample, again)
    assert sample[:, :num].abs().max() > 0.49
    assert (sample[:, num:] == 0).all()
    assert mask.shape == (1, 11025)
    assert mask.sum() == num
    assert (mask[:, :num] == 1).all()
    assert torch.equal(masked.transform(masked.read(path)), sample)


def test_channels_are_repeated_or_averaged():
    mono, stereo = AudioModality(duration=0.01), AudioModality(duration=0.01, channels=2)
    sample = torch.rand(1, 220)
    assert torch.equal(stereo.transform(sample), sample.expand(2, -1))
    both = torch.rand(2, 220)
    assert torch.allclose(mono.transform(both), both.mean(0, keepdim=True))
    assert torch.allclose(mono.transform(torch.cat([both, both, both, both[:1]])), (3 * both.sum(0) + both[0]) / 7)
    with pytest.raises(ValueError, match=r"a sound of this recipe is \(2, T\), got \(7, 220\)"):
        stereo.transform(torch.rand(7, 220))


@pytest.mark.parametrize("level", [None, -6.0])
def test_peaks_are_brought_to_their_level(level):
    modality = AudioModality(normalise="peak", level=level, duration=0.5)
    for amplitude in (0.02, 0.5, 1.0):
        sample = torch.from_numpy(tone(22050, 0.5, level=amplitude).T.copy())
        peak = modality.transform(sample).abs().max().item()
        assert 20 * math.log10(peak) == pytest.approx(-1 if level is None else level, abs=0.01)


def test_hiss_stays_hiss_and_silence_silence():
    modality = AudioModality(normalise="peak", duration=0.5)
    assert (modality.transform(torch.zeros(1, 11025)) == 0).all()
    hiss = 1e-4 * torch.randn(1, 11025)
    assert torch.allclose(modality.transform(hiss), 100 * hiss)


def test_loudness_is_brought_to_its_level_as_far_as_the_peak_allows():
    modality = AudioModality(normalise="loudness", level=-20.0)
    sample = torch.from_numpy(tone(22050, 1.0, level=0.02).T.copy())
    assert loudness(modality.transform(sample), 22050) == pytest.approx(-20, abs=0.01)
    clicks = torch.zeros(1, 22050)
    clicks[:, ::2205] = 0.5
    assert modality.transform(clicks).abs().max() == pytest.approx(1)
    assert loudness(modality.transform(clicks), 22050) < -20


def trimmed(wave, decibels):
    """The ends as ``librosa.effects.trim`` defines them, without its import: frames in dB below the loudest."""
    frames = np.lib.stride_tricks.sliding_window_view(np.pad(wave, 1024), 2048)[::512]
    level = 20 * np.log10(np.maximum(1e-5, np.sqrt(np.mean(frames**2, axis=1))))
    loud = np.flatnonzero(level - level.max() > -decibels)
    return 512 * loud[0], min(len(wave), 512 * (loud[-1] + 1))


def test_silence_is_cut_from_the_ends_as_librosa_cuts_it(tmp_path):
    time = np.arange(3 * 22050) / 22050
    wave = np.where((time > 0.7) & (time < 1.9), np.sin(2 * np.pi * 300 * time) * (time - 0.6), 1e-4 * np.sin(time))
    first, last = trimmed(wave, 40)
    assert 0.6 < first / 22050 < 0.75
    path = by_libsndfile(tmp_path / "a.wav", wave[:, None] / 2, 22050, "WAV", "FLOAT")
    modality = AudioModality(trim=40.0, duration=3.0)
    assert modality.measure(path) == {"seconds": (last - first) / 22050}
    expected = torch.from_numpy(wave[first:last] / 2).float()
    for clip in (modality.read_transformed(path)[0], modality.transform(modality.read(path))):
        assert torch.allclose(clip[0, : last - first], expected, atol=1e-6)
        assert (clip[0, last - first :] == 0).all()
    start = AudioModality(trim=40.0, duration=0.2, crop="start").read_transformed(path)[0]
    assert torch.allclose(start[0], expected[:4410], atol=1e-6)


def test_of_a_long_file_the_silence_at_both_ends_is_cut(tmp_path):
    rate = 2000
    wave = np.zeros((70 * rate, 1), np.float32)
    wave[20 * rate : 60 * rate] = tone(rate, 40.0, 100)
    wave[5 * rate : 6 * rate] = 0.3 * tone(rate, 1.0, 100)
    path = by_libsndfile(tmp_path / "a.flac", wave, rate, "FLAC", "PCM_16")
    modality = AudioModality(sample_rate=rate, trim=40.0, duration=0.5, crop="start")
    clip, _ = modality.read_transformed(path)
    assert clip.abs().max() == pytest.approx(0.15, abs=0.01)  # what sounds first, though it is soft
    # The end is silent for 10 s of the 15 that are looked at.
    longest = AudioModality(sample_rate=rate, trim=40.0, duration=70.0)
    assert longest.measure(path)["seconds"] == pytest.approx(55.0, abs=1.5)


def test_a_file_of_silence_is_refused_where_silence_is_cut(tmp_path):
    path = tmp_path / "a.wav"
    path.write_bytes(wav(bytes(44100)))
    with pytest.raises(ValueError, match=r"a\.wav is silent from end to end: .*modality\.trim=null") as caught:
        AudioModality(trim=60.0).validate(path)
    assert caught.value.reason == "silent"
    assert (AudioModality().read(path) == 0).all()


def test_seconds_are_those_of_the_sound_in_the_clip(tmp_path):
    for seconds in (0.25, 2.0):
        (tmp_path / f"{seconds}.wav").write_bytes(wav(sixteen(tone(16000, seconds)), rate=16000))
    modality = AudioModality(duration=1.0)
    assert modality.measure(tmp_path / "0.25.wav") == {"seconds": 0.25}
    assert modality.measure(tmp_path / "2.0.wav") == {"seconds": 1.0}


def test_a_clip_that_is_meant_to_be_short_may_be(tmp_path):
    (tmp_path / "a.wav").write_bytes(wav(sixteen(tone(22050, 0.01))))
    with pytest.raises(ValueError, match=r"a\.wav is 9\.98 ms long, expected at least 20 ms"):
        AudioModality().validate(tmp_path / "a.wav")
    assert AudioModality(duration=0.01).read(tmp_path / "a.wav").shape == (1, 220)
    assert AudioModality(shortest=0.005).read_transformed(tmp_path / "a.wav")[0].shape == (1, 22050)


def test_a_random_gain_is_uniform_in_decibels_up_to_full_scale():
    modality = AudioModality(sample_rate=1000, duration=0.1, crop="start", gain=6.0)
    assert modality.augments
    assert not AudioModality(crop="start").augments
    sample = torch.linspace(-0.1, 0.1, 100)[None]
    assert torch.equal(modality.transform(sample), sample), "none without a generator"
    peaks = torch.stack([modality.transform(sample, generator(seed)).abs().max() for seed in range(400)])
    gains = 20 * (peaks / 0.1).log10()
    assert (gains.min().item(), gains.max().item()) == (pytest.approx(-6, abs=0.2), pytest.approx(6, abs=0.2))
    assert abs(gains.mean().item()) < 0.6
    assert gains.std().item() == pytest.approx(12 / 12**0.5, rel=0.1)

    loud = torch.stack([modality.transform(sample * 8, generator(seed)).abs().max() for seed in range(400)])
    gains = 20 * (loud / 0.8).log10()
    assert loud.max() <= 1
    assert (gains.min().item(), gains.max().item()) == (
        pytest.approx(-6, abs=0.2),
        pytest.approx(-20 * math.log10(0.8), abs=0.2),
    )
    assert gains.mean().item() == pytest.approx((-6 - 20 * math.log10(0.8)) / 2, abs=0.4), "not heaped up at full scale"
    silence = torch.zeros(1, 100)
    assert torch.equal(modality.transform(silence, generator()), silence)


def test_a_random_gain_follows_the_crop_and_the_normalisation(tmp_path):
    path = tmp_path / "a.wav"
    path.write_bytes(wav(sixteen(tone(22050, 0.5))))
    keys = {"duration": 0.1, "normalise": "peak", "level": -12.0}
    plain, varied = AudioModality(**keys), AudioModality(**keys, gain=3.0)
    for seed in range(5):
        without, one = (modality.read_transformed(path, generator(seed))[0] for modality in (plain, varied))
        ratio = one.abs().max() / without.abs().max()
        assert 10 ** (-3 / 20) <= ratio <= 10 ** (3 / 20)
        assert ratio != 1
        torch.testing.assert_close(one, without * ratio)

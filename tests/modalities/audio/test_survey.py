"""The survey of a folder of sounds proposes a recipe and makes remarks."""

from __future__ import annotations

import pytest
import torch

from modalities.audio import AudioModality
from modalities.audio.survey import estimate_pitch
from tests.modalities.audio.files import sixteen, tone, wav


def write(folder, *sounds):
    paths = []
    for number, (rate, seconds, channels) in enumerate(sounds):
        paths.append(folder / f"{number}.wav")
        paths[-1].write_bytes(wav(sixteen(tone(rate, seconds, channels=channels)), rate, channels))
    return paths


def test_keys_fit_what_most_files_are(tmp_path):
    paths = write(tmp_path, (16000, 0.4, 1), (16000, 0.8, 1), (48000, 0.9, 2), (8000, 3.0, 1))
    (tmp_path / "text.wav").write_text("no sound")
    keys, seen = AudioModality.suggest_config([*paths, tmp_path / "text.wav"])
    assert keys == {"sample_rate": 16000, "duration": 1.0, "channels": 1, "crop": "start"}
    assert AudioModality(**keys).shape() == (1, 16000)
    assert seen.startswith("4 of 5 opened files are sounds, 3 of them mono, 8000 to 48000 Hz, 0.4 to 3 s long")


def test_long_recordings_at_a_high_rate_are_cropped_at_random(tmp_path):
    keys, _ = AudioModality.suggest_config(write(tmp_path, (48000, 9.0, 2), (44100, 6.0, 2)))
    assert keys == {"sample_rate": 22050, "duration": 4.0, "channels": 1, "crop": "random"}


def test_a_folder_without_a_sound_is_refused(tmp_path):
    (tmp_path / "text.wav").write_text("no sound")
    with pytest.raises(
        ValueError, match=r"none of the 1 files that were opened can be decoded as a sound; .*text\.wav"
    ):
        AudioModality.suggest_config([tmp_path / "text.wav"])


def test_silent_mono_and_narrow_sounds_are_remarked_on():
    stereo = AudioModality(channels=2)
    noise = 0.2 * torch.randn(2, 22050)
    assert stereo.data_warnings([noise]) == []
    (same,) = stereo.data_warnings([noise[:1].expand(2, -1)])
    assert "modality.channels=1" in same
    assert AudioModality().data_warnings([noise[:1]]) == []
    (silent,) = AudioModality().data_warnings([noise[:1], torch.zeros(1, 22050)])
    assert silent.startswith("1 of 2 sounds that were looked at are silent")
    low = torch.from_numpy(tone(22050, 1.0, 3000).T.copy())
    (narrow,) = AudioModality().data_warnings([low])
    assert "nothing above 3" in narrow
    assert "modality.sample_rate=66" in narrow
    assert len(AudioModality().data_warnings([torch.zeros(1, 22050)])) == 1


def test_pitches_that_a_log_mel_front_end_loses_are_told():
    low, high = (torch.from_numpy(tone(22050, 1.0, hertz).T.copy()) for hertz in (55, 440))
    noise = 0.2 * torch.randn(1, 22050, generator=torch.Generator().manual_seed(0))
    modality = AudioModality()
    (warning,) = modality.data_warnings([low + high, high + 1e-2 * noise, noise])
    assert warning.startswith("1 of 2 sounds with a pitch lie below 80 Hz, the lowest at 55 Hz")
    assert "num_mels=128" in warning
    assert modality.data_warnings([noise, noise[:, :512]]) == [], "neither noise nor a short sound has a pitch"


def test_a_pitch_is_that_of_the_sound_without_its_offset_and_of_rates_that_hold_it():
    low = torch.from_numpy(tone(22050, 1.0, 55).T.copy())
    assert estimate_pitch(low, 22050) == pytest.approx(55, rel=1e-2)
    assert estimate_pitch(low + 0.5, 22050) == pytest.approx(55, rel=1e-2)
    assert [estimate_pitch(torch.full((1, 22050), level), 22050) for level in (0.1, 0.25, 0.7)] == [None] * 3
    assert estimate_pitch(torch.from_numpy(tone(2000, 1.0, 900).T.copy()), 2000) is None

"""Sounds as files: samples, rate, channels and metadata come back, from each format, in each library."""

from __future__ import annotations

import json

import av
import numpy as np
import pytest
import soundfile
import torch

from modalities.audio import AudioModality, read_metadata
from modalities.audio.writing import MP3_RATES
from tests.modalities.audio.files import sixteen, tone, wav

METADATA = {
    "model": "audio/notes",
    "recipe": "audio/notes",
    "label": "family=guitar pitch=60, 'ünïcode ♪' \"quoted\"\nand a line",
    "seed": 7,
    "guidance": 1.3000000000000003,
    "times": [1.55, 1.1],
    "prompt": None,
    "student": True,
}
BITS = {".wav": (16, 24, 32), ".flac": (16, 24), ".ogg": (16,), ".mp3": (16,)}
WITHIN = {16: 2**-16, 24: 2**-24, 32: 0.0}
"""Half of a step."""


def notes(channels=1, rate=22050):
    generator = torch.Generator().manual_seed(0)
    noise = 0.02 * torch.randn(channels, rate, generator=generator)
    return torch.from_numpy(tone(rate, 1.0, channels=channels).T.copy()) + noise


@pytest.mark.parametrize(("suffix", "bits"), [(suffix, bits) for suffix, each in BITS.items() for bits in each])
@pytest.mark.parametrize("channels", [1, 2])
def test_samples_rate_channels_and_metadata_come_back(tmp_path, suffix, bits, channels):
    modality = AudioModality(channels=channels, bits=bits)
    sample, path = notes(channels), tmp_path / f"a{suffix}"
    assert modality.write(path, sample, METADATA) is None
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    back = modality.read(path)
    assert back.shape == sample.shape
    error = back - sample
    if suffix in (".wav", ".flac"):
        assert error.abs().max() <= WITHIN[bits]
        assert bits == 32 or error.abs().max() > WITHIN[bits] / 2
    else:
        # Aligned to the sample, since a shift of one would make this 18 dB.
        assert 10 * (sample.square().mean() / error.square().mean()).log10() > 20
    assert read_metadata(path) == METADATA
    with soundfile.SoundFile(path) as sound:
        assert (sound.samplerate, sound.channels, sound.frames) == (22050, channels, 22050)
        assert json.loads(sound.comment) == {"scm_media": METADATA}


@pytest.mark.parametrize("suffix", BITS)
def test_ffmpeg_opens_it_and_shows_the_comment(tmp_path, suffix):
    AudioModality().write(tmp_path / f"a{suffix}", notes(), METADATA)
    with av.open(str(tmp_path / f"a{suffix}")) as container:
        stream = container.streams.audio[0]
        entries = {key.lower(): text for key, text in (*container.metadata.items(), *stream.metadata.items())}
        assert json.loads(entries["comment"]) == {"scm_media": METADATA}
        assert (stream.rate, stream.channels) == (22050, 1)
        frames = np.concatenate([frame.to_ndarray().reshape(-1) for frame in container.decode(stream)])
    assert abs(len(frames) - 22050) <= 1200  # FFmpeg does not cut what an MP3 is padded with


@pytest.mark.parametrize("suffix", BITS)
@pytest.mark.parametrize("length", [10, 5_000])
def test_metadata_of_any_length_come_back(tmp_path, suffix, length):
    told = {"prompt": "ö" * length, "seed": 3}
    AudioModality().write(tmp_path / f"a{suffix}", notes(), told)
    assert read_metadata(tmp_path / f"a{suffix}") == told


def test_a_sound_without_our_metadata_has_none(tmp_path):
    (tmp_path / "plain.wav").write_bytes(wav(sixteen(tone(22050))))
    assert read_metadata(tmp_path / "plain.wav") == {}
    with soundfile.SoundFile(tmp_path / "other.flac", "w", 22050, 1) as sound:
        sound.comment = "recorded in the kitchen"
        sound.write(tone(22050))
    assert read_metadata(tmp_path / "other.flac") == {}
    (tmp_path / "text.wav").write_text("no sound")
    with pytest.raises(ValueError, match=r"text\.wav cannot be decoded"):
        read_metadata(tmp_path / "text.wav")


@pytest.mark.parametrize("suffix", BITS)
def test_peaks_are_limited_not_wrapped_and_reported(tmp_path, suffix):
    loud = torch.from_numpy(tone(22050, 1.0, level=1.6).T.copy())
    remark = AudioModality().write(tmp_path / f"a{suffix}", loud, {})
    assert remark == "peak 1.6 (+4.1 dBFS) was limited: the whole sound is turned down to 1"
    back = AudioModality().read(tmp_path / f"a{suffix}")
    assert (back - loud / 1.6).abs().max() < (1e-4 if suffix in (".wav", ".flac") else 0.1)


def test_what_was_read_from_16_bits_is_written_back_to_the_bit(tmp_path):
    values = np.arange(-32768, 32768, dtype="<i2")
    (tmp_path / "a.wav").write_bytes(wav(values.tobytes()))
    modality = AudioModality(duration=65536 / 22050)
    for suffix in (".wav", ".flac"):
        modality.write(tmp_path / f"b{suffix}", modality.read(tmp_path / "a.wav"), {})
        assert np.array_equal(soundfile.read(tmp_path / f"b{suffix}", dtype="int16")[0], values)


def test_full_scale_does_not_wrap(tmp_path):
    square = torch.ones(1, 1000) * torch.tensor([1.0, -1.0]).repeat_interleave(500)
    AudioModality().write(tmp_path / "a.wav", square, {})
    found = soundfile.read(tmp_path / "a.wav", dtype="int16")[0]
    assert (found.max(), found.min()) == (32767, -32768)
    assert (found[:500] == 32767).all()


def test_what_cannot_be_written_is_refused_and_nothing_is_left(tmp_path):
    modality = AudioModality(sample_rate=20000)
    with pytest.raises(ValueError, match=r"not finite"):
        modality.write(tmp_path / "a.wav", torch.full((1, 10), torch.nan), {})
    with pytest.raises(ValueError, match=r"written as \.wav, \.flac, \.ogg, \.mp3"):
        modality.write(tmp_path / "a.aiff", torch.zeros(1, 10), {})
    with pytest.raises(ValueError, match=r"\(1, T\) or \(2, T\), got \(3, 10\)"):
        modality.write(tmp_path / "a.wav", torch.zeros(3, 10), {})
    with pytest.raises(ValueError, match=r"an MP3 has one of the rates 8000, .* Hz, the sound has 20000"):
        modality.write(tmp_path / "a.mp3", torch.zeros(1, 10), {})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("rate", MP3_RATES)
def test_every_rate_that_mp3_has_is_written(tmp_path, rate):
    modality = AudioModality(sample_rate=rate)
    modality.write(tmp_path / "a.mp3", notes(rate=rate), {"seed": 1})
    assert modality.read(tmp_path / "a.mp3").shape == (1, rate)


def test_much_vorbis_is_written_in_blocks(tmp_path):
    sample = notes().repeat(1, 20)
    AudioModality().write(tmp_path / "a.ogg", sample, {})
    with soundfile.SoundFile(tmp_path / "a.ogg") as sound:
        assert sound.frames == 20 * 22050

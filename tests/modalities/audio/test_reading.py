"""Files of every kind and rate: what is heard once they are read, and how little of them is read for a clip."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch

from modalities.audio import AudioModality
from modalities.audio.reading import SUFFIXES, open_recording, read_window
from tests.modalities.audio.files import FLOAT, amplitude_at, by_ffmpeg, by_libsndfile, sixteen, tone, wav

LIBSNDFILE = {
    ".wav": ("WAV", "PCM_16", 1e-4),
    ".wave": ("WAV", "ULAW", 0.02),
    ".rf64": ("RF64", "PCM_24", 1e-6),
    ".w64": ("W64", "FLOAT", 1e-7),
    ".aif": ("AIFF", "PCM_16", 1e-4),
    ".aiff": ("AIFF", "PCM_24", 1e-6),
    ".aifc": ("AIFF", "FLOAT", 1e-7),
    ".au": ("AU", "PCM_16", 1e-4),
    ".caf": ("CAF", "PCM_16", 1e-4),
    ".flac": ("FLAC", "PCM_16", 1e-4),
    ".ogg": ("OGG", "VORBIS", 0.02),
    ".oga": ("OGG", "VORBIS", 0.02),
    ".opus": ("OGG", "OPUS", 0.1),
    ".mp3": ("MP3", "MPEG_LAYER_III", 0.05),
}
FFMPEG = {
    ".m4a": ("aac", "ipod", 48000, 2, 0.02),
    ".aac": ("aac", "adts", 32000, 2, 0.02),
    ".g722": ("g722", "g722", 16000, 1, 0.02),
    ".wma": ("wmav2", "asf", 44100, 2, 0.02),
}


def test_every_suffix_is_tried_here():
    assert set(LIBSNDFILE) | set(FFMPEG) == SUFFIXES


@pytest.mark.parametrize("suffix", LIBSNDFILE)
@pytest.mark.parametrize("channels", [1, 2])
def test_what_libsndfile_wrote_is_read_as_the_wave_that_it_was(tmp_path, suffix, channels):
    kind, subtype, tolerance = LIBSNDFILE[suffix]
    frames = tone(24000, 0.5, channels=channels)
    path = by_libsndfile(tmp_path / f"a{suffix.upper()}", frames, 24000, kind, subtype)
    sample = AudioModality(sample_rate=24000, channels=channels).read(path)
    assert sample.dtype == torch.float32
    assert sample.shape == (channels, 12000)
    assert np.abs(sample.numpy().T - frames)[1500:-1500].max() < tolerance
    assert amplitude_at(sample[0, 3000:9000].numpy(), 24000, 440) == pytest.approx(0.5, abs=min(tolerance, 0.01))


@pytest.mark.parametrize("suffix", FFMPEG)
def test_what_ffmpeg_reads_is_the_tone_that_was_written(tmp_path, suffix):
    codec, container, rate, channels, tolerance = FFMPEG[suffix]
    path = by_ffmpeg(tmp_path / f"a{suffix}", tone(rate, 1.0, channels=channels), rate, codec, container)
    read = AudioModality(sample_rate=rate, channels=channels).read(path)
    assert abs(read.shape[1] - rate) <= 3000
    middle = read[:, rate // 4 : 3 * rate // 4].numpy()
    for channel, expected in enumerate([0.5, 0.25][:channels]):
        assert amplitude_at(middle[channel], rate, 440) == pytest.approx(expected, abs=tolerance)
    if suffix == ".m4a":  # which says where it begins; its last frame is padded
        assert read.shape[1] == 47 * 1024
        assert np.abs(read.numpy().T[:rate] - tone(rate, 1.0, channels=2))[:-1000].max() < 0.1


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".mp3", ".opus", ".m4a", ".aac", ".g722", ".wma"])
def test_a_window_is_what_the_whole_has_there(tmp_path, suffix):
    time = np.arange(40000) / 16000
    sweep = 0.4 * np.sin(2 * np.pi * (100 * time + 150 * time**2)) * np.minimum(1, 2.5 - time)
    if suffix in FFMPEG:
        codec, container, _, channels, _ = FFMPEG[suffix]
        frames = np.repeat(sweep[:, None], channels, axis=1).astype(np.float32)
        path = by_ffmpeg(tmp_path / f"a{suffix}", frames, 16000, codec, container)
    else:
        kind, subtype, _ = LIBSNDFILE[suffix]
        path = by_libsndfile(tmp_path / f"a{suffix}", sweep[:, None], 16000, kind, subtype)
    modality = AudioModality(sample_rate=22050, duration=0.5)
    whole = modality.read(path)
    in_memory = io.BytesIO(path.read_bytes())
    in_memory.name = path.name
    for seed, file in enumerate([path, in_memory, path]):
        window, _ = modality.read_transformed(file, torch.Generator().manual_seed(seed))
        expected = modality.transform(whole, torch.Generator().manual_seed(seed))
        assert (window - expected).abs().max() < 1e-5


def test_windows_in_the_last_page_of_an_ogg_are_those_of_the_whole(tmp_path):
    noise = 0.3 * np.random.default_rng(0).standard_normal((3 * 22050, 1))
    path = by_libsndfile(tmp_path / "a.ogg", noise, 22050, "OGG", "VORBIS")
    with open_recording(path) as recording:
        whole = recording.read(0, recording.frames)
        for start in range(recording.frames - 6000, recording.frames, 1500):
            window = recording.read(start, recording.frames)
            assert np.abs(window - whole[start:]).max() < 1e-5


@pytest.mark.parametrize("rate", [8000, 11025, 22254, 44100, 44101, 48000, 96000, 192000])
def test_a_sine_of_any_rate_keeps_frequency_and_amplitude(tmp_path, rate):
    path = tmp_path / "a.wav"
    path.write_bytes(wav(tone(rate, 1.0, 1000).astype("<f4").tobytes(), rate, kind=FLOAT, bits=32))
    read = AudioModality(sample_rate=22050).read(path)
    assert read.shape == (1, 22050)
    time = np.arange(22050) / 22050
    error = np.abs(read[0].numpy() - 0.5 * np.sin(2 * np.pi * 1000 * time))
    assert error[500:-500].max() < 2e-4  # of phase, frequency and amplitude together: −68 dB


@pytest.mark.parametrize("frequency", [11500, 14000, 20000])
def test_nothing_above_the_new_nyquist_frequency_is_heard(tmp_path, frequency):
    path = tmp_path / "a.wav"
    path.write_bytes(wav(sixteen(tone(44100, 1.0, frequency)), 44100))
    read = AudioModality(sample_rate=22050).read(path)[0, 500:-500]
    assert 20 * np.log10(read.square().mean().sqrt().item() / 0.35355) < -85


def test_windows_at_another_rate_join_without_a_seam(tmp_path):
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (44101, 1)).astype(np.float32)
    path = by_libsndfile(tmp_path / "a.wav", noise, 44101, "WAV", "FLOAT")
    with open_recording(path) as recording:
        whole = read_window(recording, 16000, 0, 16000)
        parts = [read_window(recording, 16000, start, start + 1000) for start in range(0, 16000, 1000)]
    assert (torch.cat(parts, dim=1) - whole).abs().max() < 2e-6


class CallCounter(io.BufferedReader):
    """A file that tells how many bytes were asked of it."""

    def __init__(self, path):
        super().__init__(io.FileIO(path), buffer_size=1)
        self.bytes_read = 0

    def read(self, size=-1):
        content = super().read(size)
        self.bytes_read += len(content)
        return content

    def readinto(self, buffer):
        num = super().readinto(buffer)
        self.bytes_read += num
        return num


def test_of_three_gigabytes_no_more_than_the_clip_is_read(tmp_path):
    path = tmp_path / "huge.wav"
    with path.open("wb") as file:  # sparse: no disk holds it
        file.write(wav(b"", 44100, channels=2, size=3_000_000_000))
        file.seek(44 + 4 * 375_000_000)
        file.write(sixteen(tone(44100, 1.0, channels=2)))
        file.truncate(44 + 3_000_000_000)
    modality = AudioModality(duration=0.5, crop="centre")
    with CallCounter(path) as file:
        sample, _ = modality.read_transformed(file)
        assert sample.shape == (1, 11025)
        # The centre of the file is where its second of sound begins.
        assert amplitude_at(sample[0, 5600:].numpy(), 22050, 440) == pytest.approx(0.375, abs=0.01)
        assert sample[0, :5400].abs().max() < 1e-3
        assert file.bytes_read < 4 * (22050 + 4 * 512) + 4096
    with CallCounter(path) as file:
        modality.validate(file)
        assert modality.measure(file) == {"seconds": 0.5}
        assert file.bytes_read < 2 * 15 * 4 * 44100 + 8192
    with pytest.raises(ValueError, match=r"huge\.wav is 283 minutes long; at most 60"):
        modality.read(path)


def test_floats_beyond_full_scale_are_turned_down_and_not_clipped(tmp_path):
    path = tmp_path / "a.wav"
    path.write_bytes(wav((6 * tone(22050)).astype("<f4").tobytes(), kind=FLOAT, bits=32))
    sample = AudioModality().read(path)
    assert sample.abs().max() == 1
    assert amplitude_at(sample[0].numpy(), 22050, 440) == pytest.approx(1, abs=1e-3)

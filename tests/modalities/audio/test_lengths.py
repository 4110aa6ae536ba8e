"""Files whose headers do not tell how long they are or where they begin: all of their samples are read, in place."""

from __future__ import annotations

import io

import numpy as np
import pytest

from modalities.audio import AudioModality
from modalities.audio.reading import open_recording, read_frames
from tests.modalities.audio.files import amplitude_at, by_ffmpeg, by_libsndfile, sixteen, tone, wav, whole

RATE = 22050
NOISE = np.random.default_rng(0).uniform(-0.4, 0.4, (2 * RATE, 1)).astype(np.float32)
SOFT_FIRST = NOISE * np.linspace(0, 1, 2 * RATE, dtype=np.float32)[:, None] ** 8
LOUD_FIRST = SOFT_FIRST[::-1].copy()


def frames_of(path) -> np.ndarray:
    """All frames of a file, which are read in two windows as well, and from a file in memory."""
    with open_recording(path) as recording:
        frames = read_frames(recording, 0, recording.frames)
        middle = recording.frames // 2
    in_memory = io.BytesIO(path.read_bytes())
    in_memory.name = path.name
    for file in (path, in_memory):
        with open_recording(file) as recording:
            assert recording.frames == len(frames)
            tail = read_frames(recording, middle, recording.frames)
            head = read_frames(recording, 0, middle)
        assert np.abs(np.concatenate([head, tail]) - frames).max() < 1e-6
    return frames


def energy(frames: np.ndarray) -> float:
    return float((frames.astype(np.float64) ** 2).sum())


@pytest.mark.parametrize(("name", "container", "options"), [("a.m4a", "ipod", {}), ("a.mp3", "mp3", {})])
def test_an_attack_in_the_first_frame_is_heard_where_encoders_are_late(tmp_path, name, container, options):
    """An M4A's first packets lie before its start and prepare its first frame."""
    time = np.arange(RATE // 2) / RATE
    kick = (0.9 * np.exp(-time / 0.01) * np.cos(2 * np.pi * 300 * time))[:, None].astype(np.float32)
    codec = {"ipod": "aac", "mp3": "libmp3lame"}[container]
    path = by_ffmpeg(tmp_path / name, kick, RATE, codec, container, **options)
    frames, expected = frames_of(path), whole(path)
    assert len(frames) == len(expected)
    assert np.abs(frames - expected).max() == 0
    assert energy(frames[:1000]) == pytest.approx(energy(kick[:1000]), rel=0.2)
    assert np.correlate(frames[:3000, 0], kick[:1000, 0], "valid").argmax() == 0  # nor is it late
    clip, _ = AudioModality(sample_rate=RATE, duration=0.1, crop="start").read_transformed(path)
    assert energy(clip.numpy()) == pytest.approx(energy(frames[:2205]), rel=1e-4)


@pytest.mark.parametrize("sound", [NOISE, SOFT_FIRST, LOUD_FIRST], ids=["steady", "soft first", "loud first"])
@pytest.mark.parametrize("options", [{}, {"abr": "1"}], ids=["constant", "variable"])
def test_an_mp3_without_a_tag_is_read_to_its_end(tmp_path, sound, options):
    path = by_ffmpeg(tmp_path / "a.mp3", sound, RATE, "libmp3lame", "mp3", write_xing="0", **options)
    frames = frames_of(path)
    assert len(sound) <= len(frames) < len(sound) + 4 * 576  # whole frames, the encoder's delay included
    assert len(frames) == len(whole(path))
    assert energy(frames) == pytest.approx(energy(sound), rel=0.4)  # without what lies above the encoder's band
    AudioModality(sample_rate=RATE).validate(path)


def test_a_tag_without_the_number_of_frames_is_not_believed(tmp_path):
    path = by_ffmpeg(tmp_path / "a.mp3", SOFT_FIRST, RATE, "libmp3lame", "mp3", abr="1")
    content = bytearray(path.read_bytes())
    place = max(content.find(b"Xing"), content.find(b"Info"))
    content[place + 8 : place + 16] = bytes(8)  # frames and bytes
    path.write_bytes(content)
    assert 2 * RATE <= len(frames_of(path)) < 2 * RATE + 2 * 576
    assert len(frames_of(path)) == len(whole(path))


@pytest.mark.parametrize("options", [{}, {"write_xing": "0", "id3v2_version": "0"}], ids=["tagged", "untagged"])
def test_both_of_two_joined_mp3s_are_read(tmp_path, options):
    parts = [
        by_ffmpeg(tmp_path / f"{name}.mp3", tone(RATE, 1.0, hertz), RATE, "libmp3lame", "mp3", **options)
        for name, hertz in (("a", 440), ("b", 1200))
    ]
    path = tmp_path / "joined.mp3"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    frames = frames_of(path)
    assert len(frames) == len(whole(path))
    assert len(frames) == pytest.approx(2 * RATE, abs=6 * 576)
    for second, hertz in ((0, 440), (1, 1200)):
        part = frames[second * RATE + 4000 :][:12000, 0]
        assert np.abs(np.fft.rfft(part)).argmax() * RATE / 12000 == pytest.approx(hertz, abs=2)


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS", "flac"])
@pytest.mark.parametrize("same", [False, True], ids=["two streams", "one stream twice"])
def test_all_links_of_a_chained_ogg_are_read(tmp_path, subtype, same):
    rate = 24000
    sounds = [tone(rate, 1.1, 440), tone(rate, 0.7, 440 if same else 1200)][:: -1 if same else 1]
    sounds = sounds[:1] * 2 if same else sounds
    parts, paths = [], []
    for number, sound in enumerate(sounds):
        paths.append(tmp_path / f"{number}.ogg")
        if subtype == "flac":
            by_ffmpeg(paths[-1], sound, rate, "flac", "ogg")
        else:
            by_libsndfile(paths[-1], sound, rate, "OGG", subtype)
        parts.append(frames_of(paths[-1]))
    path = tmp_path / "chained.ogg"
    path.write_bytes(b"".join(paths[0 if same else number].read_bytes() for number in range(2)))
    frames = frames_of(path)
    assert len(frames) == sum(len(sound) for sound in sounds)
    assert np.abs(frames - np.concatenate([parts[0], parts[0] if same else parts[1]])).max() < 1e-6


def test_links_of_different_rates_are_refused(tmp_path):
    content = [
        by_libsndfile(tmp_path / "a.ogg", tone(rate), rate, "OGG", "VORBIS").read_bytes() for rate in (8000, RATE)
    ]
    path = tmp_path / "chained.ogg"
    path.write_bytes(b"".join(content))
    with pytest.raises(ValueError, match=r"chained\.ogg changes from 8000 Hz .* to 22050 Hz") as caught:
        AudioModality().validate(path)
    assert caught.value.reason == "changes inside"


@pytest.mark.parametrize("codec", ["wmav1", "wmav2"])
def test_a_wma_is_read_to_its_end(tmp_path, codec):
    """The durations of its packets are whole milliseconds, which loses one sample in a hundred."""
    sound = np.tile(NOISE, (5, 2))
    path = by_ffmpeg(tmp_path / "a.wma", sound, RATE, codec, "asf")
    frames = frames_of(path)
    assert len(frames) == len(whole(path))
    assert len(frames) >= 10 * RATE - 2048
    assert np.abs(frames - whole(path)).max() == 0


def test_a_flac_that_does_not_know_its_length_is_read_to_its_end(tmp_path):
    path = by_libsndfile(tmp_path / "a.flac", NOISE, RATE, "FLAC", "PCM_16")
    expected = frames_of(path)
    content = bytearray(path.read_bytes())
    content[21] &= 0xF0  # the 36 bits of STREAMINFO that hold the number of samples
    content[22:26] = bytes(4)
    path.write_bytes(content)
    assert np.array_equal(frames_of(path), expected)


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF, 0x7FFFF000])
def test_a_wav_from_a_pipe_is_read_to_its_end(tmp_path, size):
    path = tmp_path / "a.wav"
    path.write_bytes(wav(sixteen(NOISE), RATE, size=size))
    frames = frames_of(path)
    assert len(frames) == len(NOISE)
    assert np.abs(frames * 32768 - np.round(NOISE * 32767)).max() == 0


def test_a_wav_that_libsndfile_cannot_seek_in_is_read(tmp_path):
    path = by_libsndfile(tmp_path / "a.wav", tone(RATE, 2.0), RATE, "WAV", "GSM610")
    frames = frames_of(path)
    assert len(frames) == 138 * 320
    assert amplitude_at(frames[8000:16000, 0], RATE, 440) == pytest.approx(0.5, abs=0.05)
    path = by_ffmpeg(tmp_path / "b.wav", tone(RATE, 2.0), RATE, "libmp3lame", "wav")
    assert len(frames_of(path)) == len(whole(path))


@pytest.mark.parametrize(
    ("name", "codec", "container"),
    [("a.mp3", "libmp3lame", "mp3"), ("a.aac", "aac", "adts"), ("a.wma", "wmav2", "asf")],
)
def test_half_a_packet_at_the_end_is_no_reason_to_refuse_a_file(tmp_path, name, codec, container):
    path = by_ffmpeg(tmp_path / name, NOISE, RATE, codec, container, **({"write_xing": "0"} if codec[0] == "l" else {}))
    path.write_bytes(path.read_bytes()[:-50])
    frames = frames_of(path)
    assert len(frames) == len(whole(path))
    assert len(frames) > 1.9 * RATE
    AudioModality(sample_rate=RATE).validate(path)


@pytest.mark.parametrize(("name", "codec", "container"), [("a.g722", "g722", "g722"), ("a.ogg", "vorbis", "ogg")])
def test_a_window_anywhere_is_the_wholes(tmp_path, name, codec, container):
    """G.722 adapts to all that came before; libsndfile counts wrongly in the last page of an Ogg Vorbis."""
    rate, channels = (16000, 1) if codec == "g722" else (44100, 2)
    sound = np.tile(tone(rate, 3.0, 500, channels=channels), (2, 1)) * np.linspace(0, 1, 6 * rate)[:, None]
    path = by_ffmpeg(tmp_path / name, sound.astype(np.float32), rate, codec, container)
    expected = frames_of(path)
    for start in range(0, len(expected) - 1000, rate // 4):
        with open_recording(path) as recording:
            found = read_frames(recording, start, start + 1000)
        assert np.abs(found - expected[start : start + 1000]).max() <= (0 if codec == "g722" else 1e-6), start


def test_aac_windows_differ_in_drawn_noise_alone(tmp_path):
    """Within the first half minute windows are the whole's; later ones have the same power in each second."""
    sound = np.tile(0.5 * NOISE, (20, 1))
    path = by_ffmpeg(tmp_path / "a.m4a", sound, RATE, "aac", "ipod")
    expected = whole(path)
    with open_recording(path) as recording:
        assert recording.frames == len(expected)
        for second in (0, 7, 29):
            found = read_frames(recording, second * RATE, (second + 1) * RATE)
            assert np.array_equal(found, expected[second * RATE : (second + 1) * RATE])
        found = read_frames(recording, 35 * RATE, 36 * RATE)
        assert energy(found) == pytest.approx(energy(expected[35 * RATE : 36 * RATE]), rel=0.02)
    by_ffmpeg(path, sound, RATE, "aac", "ipod", aac_pns="0")
    expected = whole(path)
    with open_recording(path) as recording:
        assert np.array_equal(read_frames(recording, 35 * RATE, 36 * RATE), expected[35 * RATE : 36 * RATE])

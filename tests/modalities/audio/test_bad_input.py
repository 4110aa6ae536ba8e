"""A file's fault is said in one line, and counted by reason where a dataset is opened."""

from __future__ import annotations

import resource
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
import torch

from modalities.audio import AudioModality
from modalities.audio.containers import ContainerRecording
from modalities.audio.reading import open_recording
from modalities.audio.recording import SoundError
from scm_media.data import FolderDataset
from tests.modalities.audio.files import FLOAT, by_ffmpeg, by_libsndfile, sixteen, tone, wav

TONE = tone(22050)


def with_value(value):
    frames = TONE.copy()
    frames[100] = value
    return wav(frames.astype("<f4").tobytes(), kind=FLOAT, bits=32)


def cut(folder, name, kind, subtype):
    """A file of ten seconds without its last fifth."""
    noise = np.random.default_rng(0).uniform(-0.3, 0.3, (220500, 1))
    content = by_libsndfile(folder / f"whole-{name}", noise, 22050, kind, subtype).read_bytes()
    (folder / f"whole-{name}").unlink()
    return content[: len(content) * 4 // 5]


BAD = {
    "text.wav": (b"no such thing" * 50, "not audio", "text.wav cannot be decoded as a sound: Format not recognised"),
    "text.mp3": (b"no such thing" * 500, "not audio", "cannot be decoded as a sound: Invalid data"),
    "text.m4a": (b"no such thing" * 50, "not audio", "cannot be decoded as a sound: Invalid data"),
    "list.m4a": (b"#EXTM3U\n#EXTINF:10,\n/etc/hostname\n", "not audio", "cannot be decoded as a sound"),
    "rate-0.wav": (wav(sixteen(TONE), rate=0), "not audio", "its header gives a sample rate of 0 Hz"),
    "no-channel.wav": (wav(sixteen(TONE), channels=0), "damaged header", "22050 Hz and 0 channels in its header"),
    "half-header.wav": (wav(sixteen(TONE))[:20], "not audio", "Malformed 'fmt ' chunk"),
    "nothing.wav": (b"", "empty", r"nothing.wav is empty \(0 bytes\)"),
    "no-samples.wav": (wav(b""), "empty", "no-samples.wav holds no samples"),
    "short.wav": (
        wav(sixteen(TONE[:200])),
        "too short",
        "is 9.07 ms long, expected at least 20 ms: .*modality.shortest",
    ),
    "nan.wav": (
        with_value(np.nan),
        "samples that are not finite",
        r"not finite \(NaN or infinity\), the first at 0.005 s",
    ),
    "infinity.wav": (with_value(-np.inf), "samples that are not finite", "the first at 0.005 s"),
    "cut.flac": (("FLAC", "PCM_16"), "cut short", r"its header promises 10.00 s, but not all of 0.00 to 10.00 s"),
    "cut.mp3": (("MP3", "MPEG_LAYER_III"), "cut short", "its header promises 10.00 s"),
}


def write_bad(folder, name):
    content = BAD[name][0]
    (folder / name).write_bytes(content if isinstance(content, bytes) else cut(folder, name, *content))
    return folder / name


@pytest.mark.parametrize("name", BAD)
def test_each_is_refused_in_one_line_that_names_it(tmp_path, name):
    path, (_, reason, words) = write_bad(tmp_path, name), BAD[name]
    modality = AudioModality()
    for look in (modality.read, modality.validate, modality.read_transformed):
        if look == modality.read_transformed and reason == "cut short":
            continue  # what a clip needs of it may be there
        with pytest.raises(ValueError, match=words) as caught:
            look(path)
        assert caught.value.reason == reason
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"gone\.wav is no file"):
        AudioModality().read(tmp_path / "gone.wav")


def test_a_file_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    (tmp_path / "a.wav").write_bytes(wav(sixteen(TONE)))

    def refuses(*arguments, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuses)
    with pytest.raises(
        ValueError, match=r"a\.wav cannot be read \(Permission denied\): check its permissions"
    ) as caught:
        AudioModality().validate(tmp_path / "a.wav")
    assert caught.value.reason == "unreadable"


def test_a_clip_from_what_is_cut_off_is_refused_and_from_what_is_there_is_not(tmp_path):
    modality, path = AudioModality(), write_bad(tmp_path, "cut.flac")
    outcomes = [attempt(modality, path, seed) for seed in range(20)]
    heard = [outcome for outcome in outcomes if not isinstance(outcome, str)]
    assert 10 <= len(heard) < 20  # about four fifths
    assert all(clip.abs().max() > 0.2 for clip in heard)
    assert all("cut short" in outcome for outcome in outcomes if isinstance(outcome, str))


def attempt(modality, path, seed):
    """The clip, or why there is none."""
    try:
        return modality.read_transformed(path, torch.Generator().manual_seed(seed))[0]
    except ValueError as error:
        return str(error)


def test_what_stands_before_the_cut_of_a_wav_is_used(tmp_path):
    (tmp_path / "cut.wav").write_bytes(wav(sixteen(TONE))[: 44 + 20001])
    assert AudioModality().read(tmp_path / "cut.wav").shape == (1, 10000)


def with_three_wavs(folder):
    """A class's folder below this one, with three sounds."""
    (folder / "hum").mkdir()
    for number in range(3):
        (folder / "hum" / f"{number}.wav").write_bytes(wav(sixteen(tone(22050, 0.5 + number))))
    return folder / "hum"


@pytest.mark.parametrize("error", [AttributeError("no rate"), MemoryError(), KeyError("a"), RuntimeError("odd\nend")])
def test_whatever_a_decoder_raises_is_the_files_fault(tmp_path, monkeypatch, error):
    """Opening and reading, by FFmpeg and by libsndfile: the file is named, and a dataset counts it."""

    def fails(*arguments, **options):
        raise error

    folder = with_three_wavs(tmp_path)
    by_ffmpeg(folder / "odd.m4a", TONE, 22050, "aac", "ipod")
    with monkeypatch.context() as patched:
        patched.setattr("av.open", fails)
        dataset = FolderDataset(AudioModality(), tmp_path)
        assert dataset.rejects == {"undecodable": 1}
        assert dataset.rejected[0][0].endswith("odd.m4a")
        assert f"odd.m4a cannot be decoded ({type(error).__name__}" in dataset.rejected[0][1]
    AudioModality().validate(folder / "odd.m4a")
    monkeypatch.setattr("soundfile.SoundFile.seek", fails)
    with pytest.raises(ValueError) as caught:
        AudioModality().read(folder / "0.wav")
    assert "0.wav " in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.reason in ("undecodable", "cut short")


def test_an_m4a_of_an_unknown_codec_is_counted(tmp_path):
    path = by_ffmpeg(with_three_wavs(tmp_path) / "odd.m4a", TONE, 22050, "aac", "ipod")
    path.write_bytes(path.read_bytes().replace(b"mp4a", b"zzzz").replace(b"esds", b"zzzz"))
    dataset = FolderDataset(AudioModality(), tmp_path)
    assert dataset.rejects == {"not audio": 1}
    assert dataset.rejected[0][1].endswith("odd.m4a cannot be decoded as a sound: FFmpeg does not know its codec")


@pytest.mark.parametrize("size", [20, 300])
def test_decoders_do_not_print_what_they_think_of_a_damaged_file(tmp_path, capfd, size):
    """libmpg123 and FFmpeg complain on the standard error stream by themselves, without the file's name."""
    rng = np.random.default_rng(0)
    path = by_ffmpeg(tmp_path / "a.mp3", rng.uniform(-0.4, 0.4, (44100, 1)).astype("f4"), 22050, "libmp3lame", "mp3")
    content = bytearray(path.read_bytes())
    for place in rng.integers(1000, len(content) - size, 15):
        content[place : place + size] = rng.bytes(size)
    path.write_bytes(content)
    outcomes = [attempt(AudioModality(duration=1.5, sample_rate=22050), path, seed) for seed in range(3)]
    assert all(isinstance(outcome, torch.Tensor) or "a.mp3" in outcome for outcome in outcomes)
    assert capfd.readouterr() == ("", "")


def test_a_broken_packet_is_silent_and_moves_nothing(tmp_path):
    path = by_ffmpeg(tmp_path / "a.m4a", tone(22050, 3.0), 22050, "aac", "ipod")
    whole = AudioModality(sample_rate=22050).read(path)
    with av.open(str(path)) as container:
        packet = next(packet for packet in container.demux(audio=0) if packet.pts == 30 * 1024)
    content = bytearray(path.read_bytes())
    content[packet.pos : packet.pos + packet.size] = b"\xff" * packet.size
    path.write_bytes(content)
    read = AudioModality(sample_rate=22050).read(path)
    assert read.shape == whole.shape
    differs = (read - whole).abs()[0] > 1e-3
    assert 0 < differs.sum() < 0.2 * 22050
    assert differs.nonzero().max() - differs.nonzero().min() < 0.3 * 22050


@pytest.mark.parametrize("channels", [3, 6, 7])
def test_many_channels_are_averaged_for_mono_and_refused_for_stereo(tmp_path, channels):
    frames = tone(22050, channels=channels)
    (tmp_path / "a.wav").write_bytes(wav(sixteen(frames), channels=channels))
    mono = AudioModality().read(tmp_path / "a.wav")
    assert np.abs(mono[0].numpy() - frames.mean(1)).max() < 1e-4
    with pytest.raises(ValueError, match=rf"a\.wav has {channels} channels, the recipe 2: .*modality\.channels=1"):
        AudioModality(channels=2).read(tmp_path / "a.wav")


@pytest.fixture
def folder(tmp_path):
    for number in range(6):
        (tmp_path / "data" / "hum").mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / "hum" / f"{number}.wav").write_bytes(wav(sixteen(tone(22050, 0.5 + 0.1 * number))))
    for name in BAD:
        write_bad(tmp_path / "data" / "hum", name)
    (tmp_path / "data" / "hum" / "notes.txt").write_text("no sound")
    return tmp_path / "data"


def test_a_dataset_counts_them_by_reason_and_names_them(folder):
    dataset = FolderDataset(AudioModality(), folder)
    assert dataset.rejects == {
        "of another kind": 1,
        "not audio": 6,
        "damaged header": 1,
        "empty": 2,
        "too short": 1,
        "samples that are not finite": 2,
        "cut short": 2,
    }
    assert len(dataset) == 5
    listed = {source.rpartition("/")[2]: reason for source, reason in dataset.rejected}
    assert listed["nan.wav"].startswith("samples that are not finite: nan.wav holds samples that are not finite")


def test_without_verify_they_are_left_out_when_they_are_met(folder, capsys):
    dataset = FolderDataset(AudioModality(), folder, verify=False)
    assert len(dataset) == 19  # and one held out
    places = {entry.path.name: place for place, entry in enumerate(dataset._entries)}
    other = dataset[places["nan.wav"]]
    assert other.source != str(folder / "nan.wav")
    assert bool(other.sample.isfinite().all())
    assert "nan.wav holds samples that are not finite" in capsys.readouterr().err
    assert dataset.rejects["unreadable since the data was opened"] >= 1


def test_a_chunk_that_claims_gigabytes_is_refused_before_they_are_allocated(tmp_path):
    file = tmp_path / "long.wav"
    soundfile.write(file, np.zeros(800, np.float32), 8000, "IMA_ADPCM")
    content = file.read_bytes()
    data = content.index(b"data")
    file.write_bytes(content[:data] + b"LIST" + (2_300_000_000).to_bytes(4, "little") + content[data:])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(SoundError, match="has a chunk in its header that is longer than the file") as error:
        ContainerRecording(file)
    assert error.value.reason == "damaged header"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kilobytes
    file.write_bytes(content)
    with open_recording(file) as recording:
        assert recording.frames >= 800


def test_a_name_that_looks_like_an_address_is_a_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    soundfile.write("plain.mp3", np.zeros(8000, np.float32), 8000)
    for name in ("12:30.mp3", "concat:plain.mp3", "http:x.mp3"):
        Path("plain.mp3").rename(name)
        with open_recording(name) as recording:
            assert recording.frames >= 8000
        Path(name).rename("plain.mp3")

"""A folder of sounds as people have them (formats, rates, channels, lengths, a broken file) under audio/folder."""

from __future__ import annotations

import pytest
import soundfile

import scm_media
from modalities.audio import read_metadata
from scm_media import weights
from scm_media.cli import main
from tests.modalities.audio.files import by_ffmpeg, by_libsndfile, tone

BY_LIBSNDFILE = (
    ("drums/long.wav", 44100, 2, 4.0, "WAV", "PCM_24"),
    ("drums/loud.wav", 8000, 1, 0.7, "WAV", "FLOAT"),
    ("drums/short.flac", 96000, 1, 0.3, "FLAC", "PCM_16"),
    ("voices/old.ogg", 16000, 1, 2.5, "OGG", "VORBIS"),
    ("voices/tape.mp3", 32000, 2, 1.5, "MP3", "MPEG_LAYER_III"),
)
BY_FFMPEG = (
    ("voices/phone.m4a", 48000, 2, 2.1, "aac", "ipod"),
    ("voices/radio.g722", 16000, 1, 1.0, "g722", "g722"),
)
NUM = len(BY_LIBSNDFILE) + len(BY_FFMPEG)
SMALL = (
    "device=cpu",
    "precision=32-true",
    "logger=none",
    "data.held_out=0.3",
    "trainer.num_workers=0",
    "trainer.sample_early=[]",
    "trainer.num_preview_samples=2",
    "sampler.teacher_steps=2",
    "autoencoder.num_samples=8",
    "backbone.width=64",
    "backbone.depth=2",
    "backbone.num_heads=2",
    "feature_extractor.max_steps=2",
    "feature_extractor.batch_size=4",
    "teacher.max_steps=2",
    "teacher.batch_size=4",
    "guide.max_steps=2",
    "guide.backbone.width=64",
    "guide.backbone.num_heads=2",
    "trajectories.num=8",
    "trajectories.steps=2",
    "warm_start.max_steps=2",
    "warm_start.batch_size=4",
    "student.max_steps=2",
    "student.batch_size=4",
)


@pytest.fixture
def sounds(tmp_path):
    """Seven sounds in two sub-folders, and a text that calls itself one."""
    folder = tmp_path / "sounds"
    for number, (name, rate, channels, seconds, kind, subtype) in enumerate(BY_LIBSNDFILE):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        by_libsndfile(folder / name, tone(rate, seconds, 220 * (number + 1), channels=channels), rate, kind, subtype)
    for name, rate, channels, seconds, codec, container in BY_FFMPEG:
        by_ffmpeg(folder / name, tone(rate, seconds, 330, channels=channels), rate, codec, container)
    (folder / "drums" / "notes.wav").write_text("buy strings")
    return folder


@pytest.mark.slow
def test_mixed_files_are_checked_trained_on_in_two_stages_and_new_ones_made(sounds, tmp_path, capsys):
    run_dir = tmp_path / "run"
    recipe = ["audio/folder", f"data.root={sounds}", f"run_dir={run_dir}", *SMALL]
    main(["check", *recipe])
    told = capsys.readouterr()
    assert "notes.wav" in told.out + told.err
    assert "not audio" in told.out + told.err
    assert main(["train", *recipe]) == 0
    for stage in ("teacher", "student"):
        assert weights.read(run_dir / stage / "weights.safetensors").info["step"] == 2
    model = scm_media.load(str(run_dir))
    assert model.labels.parse("drums") != model.labels.parse("voices")
    out = tmp_path / "clips"
    for suffix in ("wav", "flac"):
        arguments = ["generate", str(run_dir), "--label", "voices", "-n", "2", "--format", suffix]
        assert main([*arguments, "--out", str(out / suffix)]) == 0
        files = sorted((out / suffix).glob(f"*.{suffix}"))
        assert len(files) == 2
        for file in files:
            wave, rate = soundfile.read(file)
            assert (rate, wave.shape) == (22050, (45056,))
            assert 0 < abs(wave).max() <= 1
            assert read_metadata(file)["label"] == "voices"
            assert read_metadata(file)["recipe"] == "audio/folder"

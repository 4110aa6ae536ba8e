"""The bundled model of sounds, from the command line: notes at the pitch that was asked for, one after the other."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import soundfile

from modalities.audio import read_metadata
from scm_media import load
from scm_media.cli import main
from scm_media.evaluation.reference import score_labels

ASKED = "family=guitar pitch=60 velocity=100"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Eight sounds of two steps."""
    folder = tmp_path_factory.mktemp("notes") / "clips"
    assert main(["generate", "audio/notes", "--label", ASKED, "-n", "8", "--device", "cpu", "--out", str(folder)]) == 0
    return sorted(folder.glob("*.wav"))


def test_sounds_are_a_second_long_and_tell_what_they_are(files):
    assert len(files) == 8
    for file in files:
        told = read_metadata(file)
        assert told["label"] == "family=guitar pitch=60 velocity=100.0"
        assert (told["recipe"], told["steps"]) == ("audio/notes", 2)
        wave, rate = soundfile.read(file)
        assert (rate, wave.shape) == (22050, (22528,))
        assert 0.01 < abs(wave).max() <= 1


@pytest.mark.slow
def test_most_are_heard_at_the_pitch_that_was_asked_for(files, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[3] / "benchmarks"))
    heard_pitch = importlib.import_module("note_figures").estimate_pitch
    heard = [heard_pitch(*soundfile.read(file, dtype="float32")) for file in files]
    assert sum(abs(pitch - 60) * 100 <= 50 for pitch in heard) >= 5, heard


def test_most_notes_are_heard_as_the_family_that_was_asked_for():
    pipeline = load("audio/notes", "cpu")
    clips = pipeline(64, steps=2)
    labels = pipeline.conditioning(clips.labels).labels
    correct = score_labels(pipeline.network("feature_extractor"), clips.samples, labels)
    assert correct.float().mean() >= 0.65

"""Tests what a listener would hear: pitches of synthetic tones, labels that a judge hears, clips from every source."""

from __future__ import annotations

import importlib
import json
import math
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
import yaml

from modalities.audio import AudioModality
from scm_media.pipeline.labels import LabelSet
from tests.benchmarks.recipes import RATE, sounds

FOLDER = Path(__file__).parents[2] / "benchmarks"
PITCHES = (57, 64, 69)
FAMILIES = ("pipe", "percussion")


@pytest.fixture
def clips(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("samples")


@pytest.fixture
def note_figures(clips):
    return importlib.import_module("note_figures")


@pytest.fixture
def voice_figures(clips):
    return importlib.import_module("voice_figures")


def tone(pitch: float, seconds: float = 0.5, rate: int = RATE) -> np.ndarray:
    """Five harmonics of a pitch, dying away."""
    time = np.arange(int(seconds * rate)) / rate
    hertz = 440 * 2 ** ((pitch - 69) / 12)
    harmonics = [number for number in range(1, 6) if hertz * number < rate / 2]
    wave = sum(np.sin(2 * np.pi * hertz * number * time) / number for number in harmonics)
    return (0.3 * wave * np.exp(-time / seconds)).astype(np.float32)


def noise(seed: int, seconds: float = 0.5) -> np.ndarray:
    return (0.2 * np.random.default_rng(seed).standard_normal(int(seconds * RATE))).astype(np.float32)


@pytest.fixture
def folder(tmp_path):
    """A model folder of notes: pipes with a pitch, percussion without."""
    rows = []
    for number in range(48):
        family, pitch = FAMILIES[number % 2], PITCHES[number % 3]
        path = tmp_path / "data" / f"{number:02d}.wav"
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, tone(pitch) if family == "pipe" else noise(number), RATE)
        rows.append({"path": path.name, "family": family, "pitch": pitch, "pitched": family == "pipe"})
    manifest = tmp_path / "data" / "manifest.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = sounds("elsewhere.jsonl", ["family", "pitch"])
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(config))
    return SimpleNamespace(path=tmp_path, manifest=manifest, recipe=lambda: config)


class FakePipeline:
    """Makes pipes at the pitch in two steps, an octave too high in one; its autoencoder halves."""

    name, device, text = "fake", torch.device("cpu"), None
    modality = AudioModality(RATE, 0.5, crop="start")
    labels = LabelSet({"family": FAMILIES, "pitch": tuple(map(str, PITCHES))}, {"family": (1, 1), "pitch": (1, 1, 1)})
    settings = {"steps": 2}

    def __init__(self, folder):
        self.folder = folder

    def network(self, name):
        return SimpleNamespace(encode=lambda sample: sample / 2)

    def decode(self, latent):
        return latent

    def __call__(self, num, seed, batch_size, steps, teacher, guidance):
        labels = [self.labels.resolve(None, seed, index) for index in range(num)]
        waves = [
            tone(float(label["pitch"]) + (12 if steps == 1 else 0)) if label["family"] == "pipe" else noise(index)
            for index, label in enumerate(labels)
        ]
        samples = torch.from_numpy(np.stack(waves))[:, None]
        return SimpleNamespace(samples=samples, labels=labels, evaluations=steps)


@pytest.mark.slow
def test_tones_are_heard_at_their_pitch_and_noise_at_none(note_figures):
    for pitch in (33, 60, 69.4, 84):
        assert note_figures.estimate_pitch(tone(pitch, 1.0, 22_050), 22_050) == pytest.approx(pitch, abs=0.15)
    hiss = np.random.default_rng(0).standard_normal(22_050).astype(np.float32)
    assert math.isnan(note_figures.estimate_pitch(0.2 * hiss, 22_050))
    assert math.isnan(note_figures.estimate_pitch(0 * hiss, 22_050))


@pytest.mark.slow
def test_notes_are_listened_to_from_every_source(tmp_path, note_figures, folder, monkeypatch, capsys):
    monkeypatch.setattr(note_figures, "load", lambda model, precision=None: FakePipeline(folder))
    judge = tmp_path / "judge.safetensors"
    arguments = ["model", "-n", "12", "--data", str(folder.manifest), "--judge", str(judge), "--judge-steps", "8"]
    note_figures.main([*arguments, "--rows", "1", "2", "--json", "--out", str(tmp_path / "figures.json")])
    found = json.loads(capsys.readouterr().out)
    assert found == json.loads((tmp_path / "figures.json").read_text())
    assert found["pitched_families"] == ["pipe"]
    rows = {row["samples"]: row for row in found["rows"]}
    assert list(rows) == [
        "recordings",
        "recordings, through the autoencoder",
        "consistency, 1 step",
        "consistency, 2 steps",
    ]
    assert [row["pitch"] for row in rows.values()] == [1.0, 1.0, 0.0, 1.0]
    assert [row["pitch_of_ceiling"] for row in rows.values()] == [1.0, 1.0, 0.0, 1.0]
    assert [row["evaluations"] for row in rows.values()] == [None, None, 1, 2]
    assert rows["recordings"]["num"] == 12
    assert 0 < rows["recordings"]["num_pitched"] < 12, "percussion has no pitch"
    note_figures.main([*arguments, "--rows", "2", "--num-pitch", "2"])
    assert "| consistency, 2 steps | 2 | 1.000 | 1.000 | 2 |" in capsys.readouterr().out


def test_a_judge_learns_its_label_and_is_kept(tmp_path, clips, folder):
    train, held_out, manifest = clips.data_of(folder, folder.manifest)
    assert manifest == folder.manifest
    said = []
    file = tmp_path / "judge.safetensors"
    judge = clips.Judge.train_or_load(train, "family", file, steps=12, say=said.append)
    real = clips.draw_recordings(held_out, 100)
    assert len(real) == len(held_out) == 12
    assert judge.recognise(real).float().mean() > 0.9
    kept = clips.Judge.train_or_load(train, "family", file, steps=0)
    assert torch.equal(kept.recognise(real), judge.recognise(real))
    with pytest.raises(ValueError, match=r"holds a judge of \['percussion', 'pipe'\], not of \['57', '64', '69'\]"):
        clips.Judge.train_or_load(train, "pitch", file, steps=1)


def test_clips_of_a_folder_carry_their_labels(tmp_path, clips):
    modality = FakePipeline.modality
    for pitch in PITCHES:
        sample = torch.from_numpy(tone(pitch))[None]
        modality.write(tmp_path / f"{pitch}.flac", sample, {"label": f"family=pipe pitch={pitch}"})
    found = clips.read_folder(tmp_path, modality, FakePipeline.labels)
    assert [label["pitch"] for label in found.labels] == ["57", "64", "69"]
    assert found.samples.shape == (3, 1, 4_000)
    modality.write(tmp_path / "x.wav", sample, {"seed": 3})
    with pytest.raises(ValueError, match=r"x\.wav has no label inside"):
        clips.read_folder(tmp_path, modality, FakePipeline.labels)
    with pytest.raises(ValueError, match="holds no sounds"):
        clips.read_folder(tmp_path / "none", modality, FakePipeline.labels)


def test_voices_are_told_by_class(tmp_path, clips, voice_figures, folder, monkeypatch, capsys):
    monkeypatch.setattr(voice_figures, "load", lambda model, precision=None: FakePipeline(folder))
    judge = tmp_path / "judge.safetensors"
    arguments = ["model", "-n", "12", "--data", str(folder.manifest), "--judge", str(judge), "--judge-steps", "12"]
    voice_figures.main([*arguments, "--label", "family", "--rows", "2", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["voices"] == ["percussion", "pipe"]
    assert [row["voice"] for row in found["rows"]] == pytest.approx([1.0, 1.0, 1.0], abs=0.1)
    assert Counter(row["num"] for row in found["rows"]) == {12: 3}
    voice_figures.main([*arguments, "--label", "family", "--rows", "1"])
    assert "| voice recognised | by voice | samples |" in capsys.readouterr().out


def test_a_manifest_that_does_not_tell_of_pitches_is_refused(tmp_path, note_figures):
    (tmp_path / "m.jsonl").write_text('{"path": "a.wav", "family": "pipe"}\n')
    with pytest.raises(ValueError, match=r"no column pitched; examples/render_notes\.py"):
        note_figures.find_pitched_families(tmp_path / "m.jsonl")

"""The recipes of sounds, made small, on notes of one's own: labels to hear, clips to ask for, figures."""

from __future__ import annotations

import json

import numpy as np
import pytest
import soundfile

from modalities.audio import read_metadata
from scm_media import load, recipe, training, weights
from scm_media.cli import main
from scm_media.evaluation import EvaluationRequest, evaluate

RATE = 8_000
NOTES = {"bass": (30, 31), "pipe": (80, 92)}
SMALL = (
    "device=cpu",
    "logger=none",
    "precision=32-true",
    "modality.sample_rate=8000",
    "modality.duration=0.128",
    "modality.multiple=256",
    "autoencoder.network.window=128",
    "autoencoder.network.num_mels=16",
    "autoencoder.network.hop=32",
    "backbone.patch=[16,8]",
    "backbone.width=16",
    "backbone.num_heads=2",
    "backbone.depth=1",
    "+feature_extractor.network.width=4",
    "feature_extractor.max_steps=2",
    "feature_extractor.batch_size=8",
    "teacher.batch_size=8",
    "teacher.max_steps=2",
    "student.batch_size=8",
    "student.max_steps=2",
    "trajectories.num=16",
    "trajectories.steps=2",
    "trajectories.batch_size=8",
    "warm_start.max_steps=2",
    "warm_start.batch_size=8",
    "sampler.teacher_steps=2",
    "trainer.compile=false",
    "trainer.sample_early=[]",
    "trainer.num_preview_samples=2",
)


def hertz(pitch: int) -> float:
    return 440 * 2 ** ((pitch - 69) / 12)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    """Notes of two families whose pitches do not meet, at velocities from 32 to 122."""
    folder = tmp_path_factory.mktemp("notes")
    rows = []
    for family, pitches in NOTES.items():
        for pitch in pitches:
            for velocity in range(32, 128, 10):
                path = f"{family}-{pitch}-{velocity}.wav"
                wave = velocity / 127 * np.sin(2 * np.pi * hertz(pitch) * np.arange(1_024) / RATE)
                soundfile.write(folder / path, wave, RATE)
                rows.append({"path": path, "family": family, "pitch": pitch, "velocity": velocity})
    (folder / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "manifest.jsonl"


@pytest.fixture(scope="module")
def run_dir(manifest, tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("run")
    families = f"data.classes.family=[{','.join(NOTES)}]"
    training.run(recipe.compose("audio/notes", [*SMALL, families, f"data.path={manifest}", f"run_dir={run_dir}"]))
    return run_dir


def test_a_model_tells_which_labels_its_data_have_together(run_dir):
    description = json.loads((run_dir / "model.json").read_text())
    assert description["labels"] == {"family": ["bass", "pipe"], "pitch": ["30", "31", "80", "92"], "velocity": []}
    pairs = [tuple(map(int, line.split()[:2])) for line in description["label_combinations"]]
    assert pairs == [(0, 0), (0, 1), (1, 2), (1, 3)]
    quantiles = description["label_quantiles"]["velocity"]
    assert (quantiles[0], quantiles[-1]) == (32, 122)
    units = weights.read(run_dir / "student" / "weights.safetensors").config["label_units"]
    assert units["velocity"] == pytest.approx(90 / (np.pi / 2))


def test_clips_are_drawn_with_labels_that_the_data_have(run_dir):
    clips = load(run_dir)(40, steps=1)
    assert clips.samples.shape == (40, 1, 1_024)
    assert {(label["family"], label["pitch"]) for label in clips.labels} == {
        (family, str(pitch)) for family, pitches in NOTES.items() for pitch in pitches
    }
    velocities = [label["velocity"] for label in clips.labels]
    assert 32 <= min(velocities) < 50 < 104 < max(velocities) <= 122


def test_the_command_line_takes_several_labels_and_refuses_what_was_not_learned(run_dir, tmp_path, capsys):
    arguments = ["generate", str(run_dir), "--out", str(tmp_path / "clips")]
    assert main([*arguments, "--label", "family=pipe velocity=100", "-n", "2"]) == 0
    files = sorted((tmp_path / "clips").iterdir())
    assert len(files) == 2
    told = read_metadata(files[0])["label"]
    assert told.startswith("family=pipe pitch=")
    assert told.endswith("velocity=100.0")
    assert load(run_dir).labels.parse(told)["velocity"] == 100, "what a file tells can be asked for"
    capsys.readouterr()
    for label, expected in (
        ("pitch=200", "no label '200'"),
        ("velocity=300", "must lie in 32 … 122"),
        ("family=piano", "it knows family: bass, pipe"),
    ):
        assert main([*arguments, "--label", label]) == 1
        assert expected in capsys.readouterr().err


def test_sounds_are_evaluated_as_pictures_are(run_dir):
    found = evaluate(load(run_dir), EvaluationRequest(num_samples=8, rows=("teacher", 2)))
    assert [row["evaluations"] for row in found["rows"]] == [6, 2], "the recipe's guidance doubles the teacher's alone"
    assert all(np.isfinite(row["frechet"]) for row in found["rows"])
    assert all(0 <= row["accuracy"] <= 1 for row in found["rows"])

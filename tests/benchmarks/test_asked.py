"""Tests figures of models of texts: one that makes what it is asked for, and one that makes whatever it likes."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
import yaml

from modalities.audio import AudioModality
from scm_media.build import build
from scm_media.prompts import PromptBank
from scm_media.sources import open_data
from tests.benchmarks.fakes import FakeModel
from tests.benchmarks.recipes import RATE, sounds

FOLDER = Path(__file__).parents[2] / "benchmarks"
PITCHES = (48, 55, 62, 69, 76)


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module


def tone(pitch: float) -> np.ndarray:
    hertz, time = 440 * 2 ** ((pitch - 69) / 12), np.arange(RATE // 2) / RATE
    return sum(0.2 / number * np.sin(2 * np.pi * hertz * number * time) for number in (1, 2, 3)).astype(np.float32)


@pytest.fixture
def folder(tmp_path):
    """A model folder of tones that their pitches name, every tone twelve times."""
    rows = []
    for number in range(60):
        pitch = PITCHES[number % 5]
        soundfile.write(tmp_path / f"{number:02d}.wav", tone(pitch), RATE)
        family = "low" if pitch < 60 else "high"
        rows.append({"path": f"{number:02d}.wav", "family": family, "pitch": pitch, "pitched": True, "player": "Ann"})
    manifest = tmp_path / "manifest.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    target = "modalities.audio.features.AudioClassifier"
    config = {
        "recipe": "tones",
        **sounds(manifest, ["family", "pitch"], fields=["player"]),
        "text": {"templates": ["note {pitch}"], "per_example": 2, "missing": "leave_out", "labels": []},
        "feature_extractor": {"network": {"_target_": target, "channels": 1, "sample_rate": RATE, "labels": {}}},
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(config))
    recipe = tmp_path / "recipe.yaml"
    return SimpleNamespace(path=tmp_path, recipe=lambda: yaml.safe_load(recipe.read_text()))


class FakePipeline(FakeModel):
    """Makes the tone that a text names in two steps, and always the same one in one."""

    def __init__(self, folder):
        modality = AudioModality(RATE, 0.5, crop="start")
        texts = open_data(folder.recipe(), modality)["train"].caption_table.texts
        pooled = torch.cat([torch.eye(len(texts)), torch.zeros(1, len(texts))])
        text = SimpleNamespace(bank=PromptBank(texts, {"tokens": pooled[:, None], "pooled": pooled}))
        super().__init__(folder, modality, text)

    def __call__(self, num, seed, batch_size, prompt, steps, teacher, guidance):
        self.prompts += prompt
        waves = [tone(PITCHES[0] if steps == 1 else float(text.split()[-1])) for text in prompt]
        return SimpleNamespace(samples=torch.from_numpy(np.stack(waves))[:, None], labels=None, evaluations=steps)


@pytest.fixture
def pipeline(folder):
    return FakePipeline(folder)


@pytest.mark.slow
def test_a_model_that_makes_what_it_is_asked_for_is_told_from_one_that_does_not(
    tmp_path, benchmark, pipeline, monkeypatch, capsys
):
    text_retrieval = benchmark("text_retrieval")
    monkeypatch.setattr(sys.modules["asked"], "load", lambda model, precision=None: pipeline)
    monkeypatch.setattr(text_retrieval, "NUM_TEXTS", 5)
    scorer = ["--scorer", str(tmp_path / "scorer.safetensors"), "--scorer-steps", "25"]
    arguments = ["model", "-n", "15", "--rows", "1", "2", *scorer, "--wording", "{player}, give me {pitch}"]
    text_retrieval.main([*arguments, "--json"])
    rows = json.loads(capsys.readouterr().out)["rows"]
    top1 = {(row["texts"], row["samples"]): row["top1"] for row in rows}
    for texts in ("held out", "seen"):
        assert top1[texts, "recordings"] == top1[texts, "recordings, through the autoencoder"] == 1.0
        assert top1[texts, "consistency, 2 steps"] == 1.0
    assert 0.05 < top1["held out", "consistency, 1 step"] < 0.4
    assert top1["held out, other words", "consistency, 2 steps"] == 1.0
    own = pipeline.prompts[:15]
    assert pipeline.prompts[-15:] == [text.replace("note", "Ann, give me") for text in own]
    text_retrieval.main(arguments)
    assert "| consistency, 2 steps | seen | 2 | 1.000 | 0.000 | 1.000 | 15 |" in capsys.readouterr().out


@pytest.mark.slow
def test_a_scorer_may_begin_with_the_models_own_features(tmp_path, benchmark, pipeline, monkeypatch, capsys):
    text_retrieval = benchmark("text_retrieval")
    monkeypatch.setattr(sys.modules["asked"], "load", lambda model, precision=None: pipeline)
    monkeypatch.setattr(text_retrieval, "NUM_TEXTS", 5)
    network = build(
        {**pipeline.folder.recipe()["feature_extractor"]["network"], "labels": {"any": 2}}, "feature_extractor"
    )
    before = {name: value.clone() for name, value in network.state_dict().items()}
    others = pipeline.network
    pipeline.network = lambda name: network if name == "feature_extractor" else others(name)
    scorer = ["--scorer", str(tmp_path / "scorer.safetensors"), "--scorer-steps", "150", "--frozen"]
    text_retrieval.main(["model", "-n", "15", "--rows", "1", "2", *scorer, "--no-seen", "--json"])
    rows = json.loads(capsys.readouterr().out)["rows"]
    top1 = {row["samples"]: row["top1"] for row in rows}
    assert {row["texts"] for row in rows} == {"held out"}
    assert top1["recordings"] == top1["consistency, 2 steps"] > 0.8
    assert top1["consistency, 1 step"] < 0.4
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


@pytest.mark.slow
def test_notes_for_texts_are_listened_to_with_their_examples_labels(tmp_path, benchmark, pipeline, monkeypatch, capsys):
    note_figures = benchmark("note_figures")
    monkeypatch.setattr(note_figures, "load", lambda model, precision=None: pipeline)
    judge = ["--judge", str(tmp_path / "judge.safetensors"), "--judge-steps", "12", "--judge-label", "player"]
    note_figures.main(["model", "-n", "15", "--num-pitch", "10", "--rows", "1", "2", *judge, "--json"])
    found = json.loads(capsys.readouterr().out)
    pitch = {(row["texts"], row["samples"]): row["pitch"] for row in found["rows"]}
    assert pitch["held out", "recordings"] == pitch["held out", "consistency, 2 steps"] == 1.0
    assert pitch["seen", "consistency, 2 steps"] == 1.0
    assert pitch["held out", "consistency, 1 step"] < 0.5
    assert {row["recognised"] for row in found["rows"]} == {1.0}, "there is one player alone"


def test_a_model_without_texts_is_refused(benchmark, pipeline, monkeypatch):
    text_retrieval = benchmark("text_retrieval")
    monkeypatch.setattr(sys.modules["asked"], "load", lambda model, precision=None: pipeline)
    pipeline.text = None
    with pytest.raises(SystemExit):
        text_retrieval.main(["model"])
    asked = sys.modules["asked"]
    without = {**pipeline.folder.recipe(), "text": None}
    with pytest.raises(ValueError, match="the recipe tones has no section text"):
        asked.open_texts(without)

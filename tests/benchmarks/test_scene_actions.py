"""Tests whether clips move as their texts say: by a model that obeys them, and one that makes the same clip always."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml

from modalities.video import VideoModality
from tests.benchmarks.fakes import FakeModel

ROOT = Path(__file__).parents[2]
SIDE, FRAMES = 16, 16
ASKED = ("turning left", "turning right", "turning left, then turning right", "standing still", "firing")


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module


@pytest.fixture
def renderer(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    return importlib.import_module("render_scenes")


def clip(motion: str, seed: int) -> np.ndarray:
    """Returns frames of a texture that moves against the turns of the camera, and is lit by shots."""
    texture = np.kron(np.random.default_rng(seed).integers(40, 180, (SIDE // 4, SIDE // 4, 3)), np.ones((4, 4, 1)))
    halves, frames, shift = motion.split(", then "), [], 0
    for frame in range(FRAMES):
        words = halves[frame * 2 // FRAMES % len(halves)]
        shift += {"turning left": 1, "turning right": -1}.get(words, 0)
        frames.append(np.roll(texture, shift, 1) + (60 * (frame % 2) if words == "firing" else 0))
    return np.stack(frames).clip(0, 255).astype(np.uint8)


def as_sample(frames: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(frames).permute(3, 0, 1, 2).float() / 127.5 - 1


@pytest.fixture
def folder(tmp_path, renderer):
    rows = []
    for number in range(120):
        motion = ASKED[number % len(ASKED)]
        renderer.write_clip(tmp_path / f"{number}.mp4", clip(motion, number), 12)
        rows.append({"path": f"{number}.mp4", "place": "a hall", "motion": motion})
    manifest = tmp_path / "manifest.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    modality = {"size": SIDE, "num_frames": FRAMES, "frame_rate": 8.75, "window": "start"}
    network = {"_target_": "modalities.video.features.MotionNetwork", "channels": 3, "labels": {}, "width": 8}
    config = {
        "recipe": "turns",
        "modality": {"_target_": "modalities.video.modality.VideoModality", **modality},
        "data": {
            "_target_": "scm_media.data.manifest.ManifestDataset",
            "path": str(manifest),
            "labels": [],
            "fields": ["place", "motion"],
            "held_out": 0.2,
        },
        "text": {"templates": ["{motion}"], "per_example": 1, "missing": "leave_out", "labels": []},
        "feature_extractor": {"network": network},
    }
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(config))
    return SimpleNamespace(path=tmp_path, recipe=lambda: yaml.safe_load(recipe.read_text()))


class FakePipeline(FakeModel):
    """Moves as a text says in two steps, and stands still whatever the text is in one."""

    def __init__(self, folder):
        super().__init__(folder, VideoModality(FRAMES, 8.75, SIDE, window="start"), SimpleNamespace())

    def __call__(self, num, seed, batch_size, prompt, steps, teacher, guidance):
        self.prompts += prompt
        made = [
            clip("standing still" if steps == 1 else text.split(" through ")[0].split("; ")[-1].split(" please")[0], n)
            for n, text in enumerate(prompt, 500)
        ]
        samples = torch.stack([as_sample(frames) for frames in made])
        return SimpleNamespace(samples=samples, labels=None, evaluations=steps)


def test_words_of_a_motion_are_what_each_half_of_the_clip_does(benchmark, renderer):
    moves = benchmark("scene_actions").wanted_moves("walking forward and turning left, then standing still")
    expected = {"turns 0": 1, "walks 0": 1, "steps aside 0": 0, "fires 0": 0}
    assert {head: moves[head] for head in expected} == expected
    assert not any(moves[head] for head in moves if head.endswith("1"))
    alike = benchmark("scene_actions").wanted_moves("stepping right and firing")
    assert [alike[f"steps aside {half}"] for half in (0, 1)] == [2, 2]
    assert [alike[f"fires {half}"] for half in (0, 1)] == [1, 1]
    known = {word for words in benchmark("scene_actions").MOVES.values() for word in words}
    assert known == set(renderer.MOTIONS), "what the renderer words"


@pytest.mark.slow
def test_clips_that_move_as_they_were_told_are_told_from_those_that_do_not(
    tmp_path, benchmark, folder, monkeypatch, capsys
):
    scene_actions = benchmark("scene_actions")
    pipeline = FakePipeline(folder)
    monkeypatch.setattr(sys.modules["asked"], "load", lambda model, precision=None: pipeline)
    judge = ["--judge", str(tmp_path / "judge.safetensors"), "--judge-steps", "40"]
    arguments = ["model", "-n", "24", "--rows", "1", "2", *judge, "--wording", "{motion} please"]
    scene_actions.main([*arguments, "--out", str(tmp_path / "figures.json")])
    found = json.loads((tmp_path / "figures.json").read_text())["rows"]
    rows = {(row["texts"], row["samples"]): row for row in found}
    for texts in ("held out", "seen"):
        assert rows[texts, "recordings"]["turns"] > 0.85
        assert rows[texts, "consistency, 2 steps"]["turns"] > 0.85
        assert rows[texts, "consistency, 2 steps"]["all"] > 0.8
        assert rows[texts, "consistency, 1 step"]["turns"] < 0.3
        assert rows[texts, "recordings under each other's texts"]["all"] < 0.5
        assert rows[texts, "recordings"]["walks"] is None, "no text tells to walk"
    assert rows["held out, other words", "consistency, 2 steps"]["turns"] > 0.85
    assert pipeline.prompts[0].endswith(" through a hall") and pipeline.prompts[1].startswith("a hall; ")
    assert sum(text.endswith(" please") for text in pipeline.prompts) == 2 * 24
    assert "| consistency, 2 steps | held out |" in capsys.readouterr().out

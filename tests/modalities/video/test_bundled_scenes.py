"""The bundled model of videos, from the command line: scenarios that are told, motion, and frames that are kept."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import scm_media
from modalities.video import read_metadata
from scm_media.cli import main

KEPT = 7
"""Frames: the first alone and two groups of three are three latent frames."""


@pytest.fixture(scope="module")
def pipeline():
    return scm_media.load("video/scenes", "cpu")


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> list[Path]:
    """Four clips of two steps."""
    folder = tmp_path_factory.mktemp("scenes") / "clips"
    asked = ["generate", "video/scenes", "--label", "deadly_corridor", "-n", "4", "--device", "cpu"]
    assert main([*asked, "--out", str(folder)]) == 0
    return sorted(folder.glob("*.mp4"))


def test_clips_have_their_frames_and_tell_what_they_are(files, pipeline):
    assert len(files) == 4
    for file in files:
        told = read_metadata(file)
        assert told["label"] == "deadly_corridor"
        assert (told["recipe"], told["steps"]) == ("video/scenes", 2)
        sample = pipeline.modality.read(file)
        assert sample.shape == (3, 16, 64, 64)
        assert sample.std() > 0.05, "neither black nor of one colour"
        assert sample.diff(dim=1).abs().mean() > 0.004, "something moves"


def test_most_scenarios_are_told_by_the_feature_network(pipeline):
    names = pipeline.folder.description.labels["scenario"]
    clips = pipeline(2 * len(names), label=[name for name in names for _ in range(2)], steps=2, seed=5)
    found = pipeline.network("feature_extractor").logits(clips.samples)["scenario"].argmax(1)
    right = found == torch.arange(len(names)).repeat_interleave(2)
    assert right.float().mean() >= 0.7, [names[place] for place in found]


def test_a_clip_is_continued_and_a_picture_set_in_motion_with_what_was_given_kept(files, pipeline, tmp_path):
    source = pipeline.modality.read(files[0])
    for task, keep, kept in (("continue", KEPT, source[:, -KEPT:]), ("animate", 1, source[:, :1])):
        out = tmp_path / task
        asked = ["edit", "video/scenes", "--task", task, "--input", str(files[0]), "--keep", str(keep), "-n", "2"]
        assert main([*asked, "--label", "deadly_corridor", "--device", "cpu", "--out", str(out)]) == 0
        made = [pipeline.modality.read(file) for file in sorted(out.glob("*.mp4"))]
        assert [tuple(clip.shape) for clip in made] == [(3, 16, 64, 64)] * 2
        for clip in made:
            assert (clip[:, :keep] - kept).abs().mean() < 0.05, "H.264 alone changes what was given"
        assert (made[0][:, keep:] - made[1][:, keep:]).abs().mean() > 0.01, "each goes on in its own way"

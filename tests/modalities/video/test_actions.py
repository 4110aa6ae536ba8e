"""Actions of frames, from real files through a causal autoencoder: stages, clips, windows, a frame set in motion."""

from __future__ import annotations

import json

import pytest
import torch

import scm_media
from scm_media import recipe, training
from scm_media.cli import main
from scm_media.evaluation import EvaluationRequest, evaluate
from tests.modalities.video.files import moving, write_frames

NAMES = ["left", "right"]
SETTINGS = (
    "data=manifest",
    "data.labels=[]",
    "data.held_out=0.2",
    "data.actions=moves",
    f"data.action_names=[{','.join(NAMES)}]",
    "modality.frame_rate=10.0",
    "modality.channels=3",
    "conditioning.mask={probability: 0.6, types: [first, start], axis: -3}",
    "feature_extractor.max_steps=1",
    "feature_extractor.batch_size=4",
    "device=cpu",
    "logger=none",
    "autoencoder.max_steps=2",
    "autoencoder.num_samples=8",
    "teacher.max_steps=2",
    "teacher.batch_size=4",
    "teacher.warmup_steps=1",
    "student.max_steps=2",
    "student.batch_size=4",
    "trainer.sample_every=2",
    "trainer.validate_every=2",
    "trainer.num_preview_samples=2",
)


def pixels(num):
    """Frames of 16 × 16 pixels."""
    return list(((moving(num, 16) + 1) * 127.5).round().byte().permute(1, 2, 3, 0).numpy())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Ten clips of nine frames, of which seven are taken, each frame with its number and that of its clip."""
    folder = tmp_path_factory.mktemp("clips")
    lines = []
    for number in range(10):
        write_frames(folder / f"{number}.mkv", pixels(9), codec=("ffv1", "bgra", {}))
        lines.append({"path": f"{number}.mkv", "moves": [[frame, number] for frame in range(7)]})
    (folder / "list.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def compose(folder, *overrides):
    own = [f"data.path={folder / 'list.jsonl'}", f"run_dir={folder / 'run'}", *overrides]
    return recipe.compose("video/tiny", [*SETTINGS, *own])


@pytest.fixture(scope="module")
def pipeline(folder):
    training.run(compose(folder))
    return scm_media.load(folder / "run", "cpu")


def told_rows(aligned):
    """Returns the actions that clip 0 is conditioned on, latent frame by latent frame."""
    return aligned[0, 5:, :, 1, 2].T.tolist()


def test_a_latent_frame_is_told_the_three_rows_of_its_group(pipeline, told):
    rows = [[float(frame), 9.0] for frame in range(7)]
    clips = pipeline(2, actions=rows)
    assert pipeline.folder.description.latent_shape == [4, 3, 4, 4]
    assert pipeline.network("student").num_cond_channels == 4 + 1 + 3 * 2
    assert told_rows(told[0]) == [[0, 0, 0, 0, 0, 9], [1, 9, 2, 9, 3, 9], [4, 9, 5, 9, 6, 9]]
    assert clips.samples.shape == (2, 3, 7, 16, 16)
    assert clips.actions[1].tolist() == rows


def test_recorded_actions_are_drawn_whole(pipeline):
    drawn = pipeline(6).actions
    assert torch.equal(drawn[:, :, 0], torch.arange(7.0).expand(6, 7))
    assert len(drawn[:, 0, 1].unique()) > 2
    assert (drawn[:, :, 1] == drawn[:, :1, 1]).all()


def test_figures_are_of_clips_with_recorded_actions(pipeline, told):
    request = EvaluationRequest(6, rows=(1,), batch_size=3, timing_batch_size=1, timing_repeats=1)
    figures = evaluate(pipeline, request)
    assert figures["rows"][0]["frechet"] > 0
    assert torch.equal(torch.cat([aligned[:, 5:] for aligned in told[:2]])[:, 5, 0, 0, 0], pipeline(6).actions[:, 0, 1])


def test_a_frame_is_set_in_motion_and_windows_go_on_by_their_own_actions(pipeline, told):
    picture = moving(1, 16)
    rows = torch.stack([torch.arange(13.0), torch.zeros(13)], -1)
    clips = pipeline.edit("animate", picture, 1, actions=rows, frames=13, overlap=1)
    assert clips.samples.shape == (1, 3, 13, 16, 16)
    assert torch.equal(clips.samples[0, :, :1], picture)
    assert told_rows(told[0])[0] == [0, 0, 0, 0, 0, 0] and told_rows(told[0])[2] == [4, 0, 5, 0, 6, 0]
    assert told[0][0, 4].mean((1, 2)).tolist() == [1, 0, 0]
    assert told_rows(told[-1]) == [[0, 0, 0, 0, 6, 0], [7, 0, 8, 0, 9, 0], [10, 0, 11, 0, 12, 0]]
    single = pipeline(1, actions=[[3.0, 4.0]], frames=1)
    assert single.samples.shape == (1, 3, 1, 16, 16)
    assert told_rows(told[-1]) == [[0, 0, 0, 0, 3, 4]]


def test_check_names_the_numbers_and_refuses_windows_that_would_not_fit(folder, capsys):
    words = [*SETTINGS, f"data.path={folder / 'list.jsonl'}", f"run_dir={folder / 'look'}"]
    assert main(["check", "video/tiny", *words]) == 0
    assert "actions: 2 numbers for each of 7 frames: left, right" in capsys.readouterr().out
    assert main(["check", "video/tiny", *words, "modality.window=centre"]) == 1
    assert "modality.window=centre with data.actions" in capsys.readouterr().err

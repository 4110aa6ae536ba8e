"""Keys stand for a model's actions, and each window goes on from the last frames by what is pressed."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from scm_media.app import steer_tab, steering
from scm_media.app.context import App
from scm_media.app.server import build
from scm_media.app.settings import ServerSettings
from scm_media.app.steering_keys import assign_keys, keys_of
from scm_media.pipeline import load
from tests.app.small_models import write_steered
from tests.pipeline.tiny_media import write_tiny


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    return load(write_steered(tmp_path_factory.mktemp("steered")), "cpu")


def test_keys_stand_for_actions():
    both = assign_keys(["ahead", "back", "left", "right", "turn-left", "turn-right", "fire"])
    assert (both["w"], both["ArrowLeft"], both["a"], both[" "]) == ("ahead", "turn-left", "left", "fire")
    assert set(both.values()) == {"ahead", "back", "left", "right", "turn-left", "turn-right", "fire"}
    assert keys_of("ahead", both) == "↑ W"
    assert keys_of("fire", both) == "Space"
    assert assign_keys(["Left", "RIGHT", "nod", "wave"]) == {
        "ArrowLeft": "Left",
        "ArrowRight": "RIGHT",
        "a": "Left",
        "d": "RIGHT",
        "1": "nod",
        "2": "wave",
    }


def test_a_scene_goes_on_from_its_last_frames_by_what_is_pressed(pipeline):
    assert steering.can_steer(pipeline)
    first = steering.begin(pipeline, seed=3, label="middle")
    assert first.frames.shape == (3, 5, 16, 24)
    assert (first.labels, first.windows, first.seed) == ({"class": "middle"}, 1, 3)
    left, right, again = (steering.go_on(pipeline, first, [way, way], hold=2) for way in ("left", "right", "left"))
    assert left.frames.shape == (3, 9, 16, 24)
    assert torch.equal(left.frames[:, :5], first.frames), "what was there stays"
    assert torch.equal(left.newest, left.frames[:, 5:])
    assert torch.equal(left.frames, again.frames)
    assert (left.newest - right.newest).abs().mean() > 0.01
    assert left.actions[5:].tolist() == [[0, 1, 0, 0]] * 4
    assert steering.record(pipeline, "steered", left)["actions"] == "none*5,left*4"


def test_each_window_has_its_own_noise_and_longer_moves_take_several(pipeline):
    scene = steering.begin(pipeline)
    for number in range(2):
        scene = steering.go_on(pipeline, scene, ["ahead+fire"], hold=4)
        assert scene.windows == number + 2
    other = steering.go_on(pipeline, replace(scene, windows=7), ["left"])
    assert (other.newest - steering.go_on(pipeline, scene, ["left"]).newest).abs().mean() > 0.01
    assert scene.actions[5].tolist() == [1, 0, 0, 1]
    longer = steering.go_on(pipeline, scene, ["left", "right", "none"], hold=4)
    assert longer.frames.shape[1] == 13 + 12
    assert longer.newest.shape[1] == 12


def test_a_scene_begins_with_a_file(pipeline, tmp_path):
    clip = torch.linspace(-1, 1, 3 * 7 * 16 * 24).view(3, 7, 16, 24)
    file = tmp_path / "clip.gif"
    pipeline.modality.write(file, clip, {})
    scene = steering.begin(pipeline, label="low", source=file)
    assert scene.frames.shape[1] == 5, "no more than a window"
    assert (scene.frames - clip[:, 2:]).abs().mean() < 0.05
    assert steering.go_on(pipeline, scene, ["right"]).frames.shape[1] == 9


def test_the_tab_says_in_words_that_no_model_takes_actions(tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", "")  # building a page sets it
    models = str(write_tiny("video", tmp_path / "plain")), str(write_steered(tmp_path / "steered"))
    for names, found in ((models[:1], []), (models, ["steered"])):
        app = App(ServerSettings(models=names, device="cpu", out=tmp_path))
        try:
            assert steer_tab.steered_models(app) == found
            shown = {each.elem_id: each for each in build(app).blocks.values()}
            assert ("scm-steer-without" in shown, "scm-steer-pad" in shown) == (not found, bool(found))
            assert found or "scm-media train video/scenes-actions" in shown["scm-steer-without"].value
        finally:
            app.close()


def test_what_cannot_be_steered_is_said_in_words(pipeline, tmp_path):
    scene = steering.begin(pipeline)
    with pytest.raises(ValueError, match=r"knows no action 'fly'.*ahead, left, right, fire, none"):
        steering.go_on(pipeline, scene, ["fly"])
    for moves, hold in (([], 4), (["left"], 0), (["left"] * 21, 4)):
        with pytest.raises(ValueError, match=f"one step makes 1 to 80 frames; got {len(moves)} moves of {hold}"):
            steering.go_on(pipeline, scene, moves, hold)
    with pytest.raises(ValueError, match="a move is an action"):
        steering.check_moves(pipeline, "left*9999999")
    assert steering.check_moves(pipeline, "left, ahead+fire,") == ["left", "ahead+fire"]
    assert steering.describe_moves(["left", "left", "ahead"]) == "left ×2, ahead"
    plain = load(write_tiny("video", tmp_path), "cpu")
    assert not steering.can_steer(plain)
    with pytest.raises(ValueError, match="takes no actions: train a model that does"):
        steering.begin(plain)

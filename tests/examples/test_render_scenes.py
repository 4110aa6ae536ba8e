"""The script that renders scenes: its player, its pictures, and the folder that it leaves (with a game of its own)."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import av
import numpy as np
import pytest

FILE = Path(__file__).parents[2] / "examples" / "render_scenes.py"


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(FILE.parent))
    spec = importlib.util.spec_from_file_location("render_scenes", FILE)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "render_scenes", module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def scene(script, monkeypatch):
    """A scenario of squares that move by one pixel a frame; its second episode stands still, the third ends soon."""

    class Scene:
        def __init__(self, scenario):
            self.buttons = list(script.BUTTONS)

        def play(self, seed, episode, num_steps):
            num = 20 if episode == 2 else num_steps
            frames = np.zeros((num, 64, 64, 3), np.uint8)
            for step in range(num):
                left = 8 if episode == 1 else step % 40
                frames[step, 16:48, left : left + 24] = 150 + 20 * episode
            return frames, np.arange(num * 7).reshape(num, 7) % 2

        def close(self):
            pass

    monkeypatch.setattr(script, "Scene", Scene)


def test_a_way_has_one_button_at_most_and_is_kept_for_some_frames(script):
    walker = script.Walker(script.BUTTONS, np.random.default_rng(0))
    held = [walker.act(stuck=False) for _ in range(2_000)]
    for left, right in (("MOVE_FORWARD", "MOVE_BACKWARD"), ("MOVE_LEFT", "MOVE_RIGHT"), ("TURN_LEFT", "TURN_RIGHT")):
        assert not any({left, right} <= each for each in held)
    ahead = np.array(["MOVE_FORWARD" in each for each in held])
    assert ahead.mean() == pytest.approx(0.8, abs=0.08)
    changes = (ahead[1:] != ahead[:-1]).mean()
    assert changes < 2 * 0.8 * 0.2 / script.HELD * 1.5, "drawn anew every five frames, not every frame"
    again = script.Walker(script.BUTTONS, np.random.default_rng(0))
    assert [again.act(stuck=False) for _ in range(2_000)] == held


def test_who_is_stuck_turns_and_who_can_only_turn_turns_often(script):
    walker = script.Walker(("MOVE_FORWARD", "TURN_LEFT", "TURN_RIGHT"), np.random.default_rng(1))
    for _ in range(50):
        assert walker.act(stuck=True) & {"TURN_LEFT", "TURN_RIGHT"}
    turret = script.Walker(("TURN_LEFT", "TURN_RIGHT", "ATTACK"), np.random.default_rng(2))
    held = [turret.act(stuck=False) for _ in range(2_000)]
    assert np.mean([bool(each & {"TURN_LEFT", "TURN_RIGHT"}) for each in held]) == pytest.approx(0.9, abs=0.06)


def test_pictures_are_averaged_from_their_middle(script):
    screen = np.zeros((192, 256, 3), np.uint8)
    screen[:, 32:224] = 10
    screen[0:3, 32:35] = np.arange(9).reshape(3, 3, 1) * 10
    shrunk = script.shrink(screen)
    assert shrunk.shape == (64, 64, 3)
    assert shrunk[0, 0].tolist() == [40, 40, 40]
    assert (shrunk[1:] == 10).all()


def test_a_written_clip_comes_back_frame_by_frame(script, tmp_path):
    frames = np.zeros((16, 64, 64, 3), np.uint8)
    for number in range(16):
        frames[number, :, : 4 * number + 4] = (200, 40, 90)
    script.write_clip(tmp_path / "clip.mp4", frames, crf=12)
    with av.open(str(tmp_path / "clip.mp4")) as container:
        assert container.streams.video[0].average_rate == script.RATE
        assert container.streams.video[0].codec_context.pix_fmt == "yuv444p"
        decoded = list(container.decode(video=0))
    assert [frame.time for frame in decoded] == pytest.approx([number / 8.75 for number in range(16)], abs=1e-3)
    back = np.stack([frame.to_ndarray(format="rgb24") for frame in decoded]).astype(int)
    assert np.abs(back - frames).mean() < 3
    assert np.abs(back[:, 32, 60] - frames[:, 32, 60]).max() < 30, "colours do not bleed into what is beside them"


def test_the_part_of_a_scenario_lists_clips_with_the_buttons_of_their_frames(script, scene, tmp_path):
    script.render_scenario("basic", tmp_path, 12, seed=0, crf=30)
    part = json.loads((tmp_path / ".parts" / "basic.json").read_text())
    rows = part["rows"]
    assert len(rows) == len({row["path"] for row in rows}) == 12
    assert part["left_out"] == {"nothing moves": 8, "the episode ended": 1}
    assert {row["episode"] for row in rows} <= {"basic-00000", "basic-00002", "basic-00003"}
    for row in rows:
        assert np.shape(row["actions"]) == (16, 7)
        expected = np.arange(7 * row["start"], 7 * (row["start"] + 16)).reshape(16, 7) % 2
        assert np.array_equal(row["actions"], expected), "of the frames that the clip has"
        with av.open(str(tmp_path / row["path"])) as container:
            assert len(list(container.decode(video=0))) == 16
    starts = sorted(row["start"] for row in rows if row["episode"] == "basic-00000")
    assert min(np.diff(starts)) > 16, "clips do not overlap"


def test_other_settings_and_values_are_refused(script, tmp_path, capsys):
    script.check_settings(tmp_path, {"clips": 4})
    with pytest.raises(SystemExit, match=r"was begun with another clips 4, now 5; choose another folder"):
        script.check_settings(tmp_path, {"clips": 5})
    with pytest.raises(SystemExit):
        script.main([str(tmp_path), "--clips", "0"])
    assert "--clips must be at least 1, got 0" in capsys.readouterr().err


def test_what_is_done_and_where_is_said_in_words(script):
    actions = np.zeros((16, 7))
    assert script.describe("my_way_home", actions)["caption"] == "standing still, in a maze of rooms"
    actions[:, 0] = 1
    actions[8:13, 4] = 1
    actions[2:4, 6] = 1
    said = script.describe("deadly_corridor", actions)
    assert said["motion"] == "walking forward and firing, then walking forward and turning left"
    assert said["place"] == "a corridor with monsters on both sides"
    actions[4:, 0] = 0
    assert script.describe("basic", actions)["motion"] == "walking forward and firing, then turning left"
    assert script.PLACES.keys() == set(script.SCENARIOS)
    assert len(script.MOTIONS) == len(script.BUTTONS)

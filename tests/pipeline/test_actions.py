"""Samples made for actions: written, read, recorded and drawn; told to the network place by place; refused clearly."""

from __future__ import annotations

import json

import pytest
import torch

import scm_media
from scm_media.pipeline import SamplingRequest
from scm_media.pipeline.actions import format_actions
from tests.data.strips import ACROSS, PLACES
from tests.pipeline.moves import NAMES, write_moves_model

pytestmark = pytest.mark.usefixtures("allowed")
SIX = "left*2,none,left+right,right*2"
ROWS = [[1.0, 0], [1, 0], [0, 0], [1, 1], [0, 1], [0, 1]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_moves_model(tmp_path_factory.mktemp("moves"))


@pytest.fixture(scope="module")
def pipeline(folder, allowed):
    return scm_media.load(folder, "cpu")


def test_actions_are_written_by_name_or_stand_in_files(pipeline, tmp_path):
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    table = "".join(f"{row[0]}, {row[1]}\n" for row in ROWS)
    (tmp_path / "rows.csv").write_text(table)
    (tmp_path / "named.csv").write_text("left,right\n" + table)
    for given in (SIX, " LEFT * 2, None,right+left ,right*2", ROWS, torch.tensor(ROWS)):
        assert pipeline.actions.parse(given).tolist() == ROWS
    for name in ("rows.jsonl", "rows.csv", "named.csv"):
        assert pipeline.actions.parse(tmp_path / name).tolist() == ROWS
        assert pipeline.actions.parse(str(tmp_path / name)).tolist() == ROWS
    assert format_actions(torch.tensor(ROWS), NAMES) == SIX
    assert format_actions(torch.tensor([[0.5, 0]]), NAMES) is None


def test_the_network_is_told_each_place_its_row_after_what_is_known(pipeline, told):
    clips = pipeline(2, actions=SIX, label="forth")
    assert len(told) == clips.evaluations == 2
    for aligned in told:
        assert aligned.shape == (2, 4, PLACES, ACROSS)
        assert aligned[:, :2].abs().max() == 0, "nothing is known"
        assert aligned[1, 2:, :, 5].T.tolist() == ROWS
    assert clips.actions.tolist() == [ROWS, ROWS]


def test_what_is_done_is_what_comes_out_and_the_same_is_the_same(pipeline):
    one, again, other = (
        pipeline(3, actions=actions, label="back", batch_size=size).samples
        for actions, size in ((SIX, 3), (SIX, 3), ("right*6", 3))
    )
    assert torch.equal(one, again)
    assert (one - other).abs().amax((1, 2, 3)).min() > 1e-3
    apart = pipeline(3, actions=SIX, label="back", batch_size=1).samples
    torch.testing.assert_close(apart, one, rtol=0, atol=1e-5)
    both = pipeline(2, actions=[ROWS, [[0.0, 1]] * 6], label="back").samples
    torch.testing.assert_close(both, torch.stack([one[0], other[1]]), rtol=0, atol=1e-5)
    teacher, turned = (pipeline(1, actions=actions, teacher=True).samples for actions in (SIX, "right*6"))
    assert (teacher - turned).abs().max() > 1e-3


def test_without_any_a_recorded_sequence_of_the_class_is_drawn(pipeline, told):
    clips = pipeline(40, label=["back", "forth"] * 20, seed=3)
    number = clips.actions[:, 0, 0]
    assert torch.equal(clips.actions, number[:, None, None].expand(40, PLACES, 2)), "whole sequences"
    assert number[::2].max() == 7 and number[1::2].min() == 8
    assert len(number[::2].unique()) > 4 and len(number[1::2].unique()) == 4
    assert torch.equal(told[0][:, 2, 0, 0], number)
    later = next(pipeline.batches(SamplingRequest(num=2, label="forth", first=30, seed=3)))
    assert torch.equal(later.actions[1], clips.actions[31])
    assert not torch.equal(pipeline(40, label=["back", "forth"] * 20, seed=4).actions, clips.actions)


def test_windows_know_the_rows_of_their_own_places(pipeline, told):
    rows = torch.arange(20.0).reshape(10, 2)
    clips = pipeline(1, actions=rows, places=10, overlap=2)
    assert clips.samples.shape == (1, 1, 10, ACROSS)
    assert torch.equal(clips.actions[0], rows)
    assert torch.equal(told[0][0, 2:, :, 0].T, rows[:6])
    assert torch.equal(told[-1][0, 2:, :, 0].T, rows[4:])
    assert told[-1][0, 1].mean(-1).tolist() == [1, 1, 0, 0, 0, 0]
    longer = pipeline(1, places=10).actions[0, :, 0]
    assert len(longer[:6].unique()) == len(longer[6:].unique()) == 1


def test_what_is_given_and_what_is_done_make_what_follows(pipeline, told):
    strip = torch.linspace(-1, 1, ACROSS).expand(1, 1, ACROSS)
    left, right = (pipeline.edit("continue", strip, 2, "back", keep=1, actions=f"{way}*6") for way in NAMES)
    for clips in (left, right):
        assert torch.equal(clips.samples[:, :, :1], strip.expand(2, 1, 1, ACROSS))
    assert (left.samples - right.samples)[:, :, 1:].abs().amax((1, 2, 3)).min() > 1e-3
    assert told[0][0, 1].mean(-1).tolist() == [1, 0, 0, 0, 0, 0]
    assert told[0][0, 2:, :, 0].T.tolist() == [[1, 0]] * 6
    drawn = pipeline.edit("continue", strip, 8, keep=1)
    assert drawn.actions.shape == (8, PLACES, 2)
    assert len(drawn.actions[:, 0, 0].unique()) > 2


def test_a_network_that_is_told_nothing_known_is_told_rows_alone(tmp_path):
    pipeline = scm_media.load(write_moves_model(tmp_path, mask=False), "cpu")
    assert pipeline(1, actions=SIX).samples.shape == (1, 1, PLACES, ACROSS)
    strip = torch.zeros(1, 1, ACROSS)
    left, right = (pipeline.edit("continue", strip, 1, "back", keep=1, actions=f"{way}*6").samples for way in NAMES)
    assert (left - right).abs().max() > 1e-3


def test_guidance_by_class_keeps_the_rows(pipeline):
    seen = []
    handle = pipeline.network("teacher").register_forward_pre_hook(lambda _, inputs: seen.append(inputs[2]))
    pipeline(1, "back", actions=SIX, teacher=True, guidance=2.0)
    handle.remove()
    without = [cond for cond in seen if (cond.labels["way"] == -1).any()]
    assert without
    assert all(torch.equal(cond.concat[0, 2:, :, 0].T, torch.tensor(ROWS)) for cond in without)


@pytest.mark.parametrize(
    ("actions", "said"),
    [
        ("left*5", r"one row for each frame of the sample, 6 in all; got 5"),
        ("left*5,up", r"knows no action 'up'; it knows left, right, none"),
        ("lef*6", r"knows no action 'lef' \(nearest: left\)"),
        ("left*-1", r"written NAME\*COUNT,NAME\+NAME\*COUNT,… or stand in a .jsonl or .csv; got 'left\*-1'"),
        ("left*2*3", r"got 'left\*2\*3'"),
        ("", "got ''"),
        (
            [[1.0, 0, 0]] * 6,
            "the given actions: got 6×3 numbers; expected 2 numbers for each frame: left, right",
        ),
        ([[1.0, float("nan")]] * 6, "6×2 numbers, not all of them finite"),
        ([1.0, 0], "got 2 numbers; expected 2 numbers for each frame"),
        ([["left", 0]] * 6, "the given actions: no rows of numbers"),
        ([ROWS] * 3, "got actions of 3 samples for 2; give one sequence, or one a sample"),
        ("missing.jsonl", r"the actions in missing.jsonl cannot be read"),
    ],
)
def test_actions_that_cannot_be_are_refused(pipeline, actions, said):
    with pytest.raises(ValueError, match=said):
        pipeline(2, actions=actions)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("rows.jsonl", "[1, 0]\nleft\n", r"rows.jsonl holds no actions: .*expected 2 numbers"),
        ("rows.jsonl", "[1, 0]\n[1]\n", r"rows.jsonl: no rows of numbers"),
        ("rows.csv", "right,left\n1,0\n", r"rows.csv holds no actions: could not convert .*: left, right"),
        ("rows.csv", "", r"rows.csv: got 0 numbers"),
    ],
)
def test_files_that_hold_none_are_refused_by_name(pipeline, tmp_path, name, text, said):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=said):
        pipeline(1, actions=tmp_path / name)


def test_a_model_without_actions_takes_none(tmp_path):
    pipeline = scm_media.load(write_moves_model(tmp_path, mask=False, actions=False), "cpu")
    assert pipeline(1).actions is None
    with pytest.raises(
        ValueError, match="the model was trained without actions, so it takes none; leave --actions out"
    ):
        pipeline(1, actions=SIX)


def test_an_exported_model_draws_as_before_and_one_without_its_recordings_asks_for_some(pipeline, tmp_path):
    pipeline.save_pretrained(tmp_path)
    exported = scm_media.load(tmp_path, "cpu")
    assert torch.equal(exported(3, seed=1).actions, pipeline(3, seed=1).actions)
    assert "`--actions`): left, right" in (tmp_path / "README.md").read_text()
    (tmp_path / "action_bank.safetensors").unlink()
    bare = scm_media.load(tmp_path, "cpu")
    assert len(bare(1, actions=SIX)) == 1
    with pytest.raises(ValueError, match="has no action bank to draw from: give actions"):
        bare(1)


def test_actions_of_each_clip_are_kept_together_with_it_in_any_batch(pipeline):
    rows = torch.randint(0, 2, (5, 6, 2)).float()
    clips = pipeline(5, actions=rows, batch_size=2)
    assert torch.equal(clips.actions, rows)
    with pytest.raises(ValueError, match="got actions of 5 samples for 4"):
        pipeline(4, actions=rows, batch_size=2)
    drawn = pipeline(5, seed=2, batch_size=2).actions
    assert torch.equal(drawn, pipeline(5, seed=2).actions)

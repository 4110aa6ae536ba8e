"""``--actions`` of ``generate`` and ``edit``: files say what was done, mistakes are one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scm_media.cli import main
from tests.data.strips import write_strips
from tests.pipeline.moves import write_moves_model


@pytest.fixture
def moves(tmp_path, monkeypatch):
    monkeypatch.setenv("SCM_MEDIA_ALLOW", "tests")
    return write_moves_model(tmp_path / "model")


def made(capsys, *words):
    assert main([*map(str, words), "--json"]) == 0
    path = json.loads(capsys.readouterr().out)["samples"][0]["path"]
    content = json.loads(Path(path).read_text())
    return content["sample"], content["metadata"]


def test_files_say_what_was_done_as_it_is_asked_for(moves, tmp_path, capsys):
    words = ("generate", "--actions", "left*3,left+right,right*2", moves, "--label", "back", "--out", tmp_path / "out")
    first, told = made(capsys, *words)
    assert told["actions"] == "left*3,left+right,right*2"
    again, _ = made(capsys, "generate", moves, "--actions", told["actions"], "--label", "back", "--out", tmp_path)
    other, _ = made(capsys, "generate", moves, "--actions", "right*6", "--label", "back", "--out", tmp_path)
    assert first == again != other
    _, recorded = made(capsys, "generate", moves, "--label", "forth", "--out", tmp_path)
    assert "actions" not in recorded, "the recorded ones are no zeros and ones"


def test_a_file_goes_on_by_actions(moves, tmp_path, capsys):
    given = tmp_path / write_strips(tmp_path, 2)[1]
    words = ("edit", moves, "--task", "continue", "--input", given, "--keep", "2", "--label", "back")
    one, told = made(capsys, *words, "--actions", "left*6", "--out", tmp_path / "one")
    other, _ = made(capsys, *words, "--actions", "right*6", "--out", tmp_path / "other")
    assert told["actions"] == "left*6"
    assert one[0][:2] == other[0][:2] == json.loads(given.read_text())["sample"][0][:2]
    assert one[0][2:] != other[0][2:]
    assert main([*map(str, words), "--out", str(tmp_path / "drawn")]) == 0
    assert "drawn from its action bank; set them with --actions A" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("actions", "said"),
    [
        ("left*7", "one row for each frame of the sample, 6 in all; got 7"),
        ("jump*6", "knows no action 'jump'; it knows left, right, none"),
    ],
)
def test_mistakes_are_one_line(moves, capsys, actions, said):
    assert main(["generate", str(moves), "--actions", actions]) == 1
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_a_model_without_actions_says_so(model, capsys):
    assert main(["generate", str(model), "--actions", "left*6"]) == 1
    assert "trained without actions" in capsys.readouterr().err

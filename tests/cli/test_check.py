"""``check``: what is in the data, and exit 1 when it is of no use."""

from __future__ import annotations

import os

import pytest
from PIL import Image

from scm_media.cli import main


def test_shapes_are_counted_and_previewed(tmp_path, capsys):
    assert main(["check", "image/tiny", "data.num=40", f"run_dir={tmp_path}/run"]) == 0
    said = capsys.readouterr().out
    assert "40 examples to train on, 1 held out" in said
    assert "shape: 1×16×16" in said
    assert "label class: 4 classes: circle 10, square 10, triangle 10, cross 10" in said
    assert "rejected: none" in said
    assert f"preview: {tmp_path}/run/preview.png" in said
    with Image.open(tmp_path / "run" / "preview.png") as picture:
        assert min(picture.size) > 4 * 16


def test_overrides_may_stand_behind_flags(tmp_path, capsys):
    assert main(["check", "image/tiny", "--rejects", "all", "data.num=40", f"run_dir={tmp_path}/run"]) == 0
    assert "40 examples to train on, 1 held out" in capsys.readouterr().out


def test_rejects_are_counted_by_reason(tmp_path, capsys):
    for name, level in (("dark", 20), ("light", 220)):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(30):
            Image.new("L", (16, 16), level + number).save(tmp_path / "data" / name / f"{number}.png")
    (tmp_path / "data" / "dark" / "broken.png").write_bytes(b"no picture")
    assert main(["check", "image/tiny", "data=folder", f"data.root={tmp_path}/data", f"run_dir={tmp_path}/run"]) == 0
    said = capsys.readouterr().out
    assert "label class: 2 classes: dark" in said
    assert "rejected: 1 " in said
    assert "broken.png" in said


@pytest.mark.parametrize("content", [None, {}, {"a/broken.png": b"no picture"}])
def test_data_of_no_use_is_one_line_and_exit_1(tmp_path, capsys, content):
    root = tmp_path / "data"
    if content is not None:
        root.mkdir()
        for name, written in content.items():
            (root / name).parent.mkdir()
            (root / name).write_bytes(written)
    assert main(["check", "image/tiny", "data=folder", f"data.root={root}", f"run_dir={tmp_path}/run"]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert str(root) in said.err
    assert not (tmp_path / "run").exists()


def test_a_class_of_one_file_and_grey_data_are_named_with_the_remedy(tmp_path, capsys):
    for name, num in (("many", 12), ("single", 1)):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(num):
            Image.new("L", (16, 16), 9 * number).save(tmp_path / "data" / name / f"{number}.png")
    words = ["image/folder", f"data.root={tmp_path}/data", "modality.size=16", f"run_dir={tmp_path}/run"]
    assert main(["check", *words]) == 0
    said = capsys.readouterr().out
    assert "warning: one example alone: class single; " in said
    assert "add more, or take the class away" in said
    assert "warning: all 12 pictures that were looked at are grey" in said
    assert main(["check", *words, "modality.channels=1"]) == 0
    assert "grey" not in capsys.readouterr().out


@pytest.fixture
def torn(tmp_path):
    """Twenty pictures and nine files that are none, one of them with a name that is not UTF-8."""
    (tmp_path / "data" / "a").mkdir(parents=True)
    for number in range(20):
        Image.new("L", (16, 16), number).save(tmp_path / "data" / "a" / f"{number}.png")
    for name in [*(f"torn {number}.png" for number in range(7)), "tab\there.png", os.fsdecode(b"caf\xe9.png")]:
        (tmp_path / "data" / "a" / name).write_bytes(b"torn")
    return [f"data.root={tmp_path}/data", "data=folder", f"run_dir={tmp_path}/run"]


def test_five_rejects_are_listed_unless_all_are_asked_for(torn, capsys):
    assert main(["check", "image/tiny", *torn]) == 0
    said = capsys.readouterr().out
    assert said.count(": undecodable: ") == 5
    assert "  … and 4 more: --rejects all lists them, --rejects FILE writes them" in said
    assert main(["check", "image/tiny", *torn, "--rejects", "all"]) == 0
    said = capsys.readouterr().out
    assert said.count(": undecodable: ") == 9
    assert " more: " not in said
    assert r"caf\xe9.png: undecodable: caf\xe9.png cannot be decoded" in said
    assert said.encode()


def test_rejects_are_written_into_a_file_a_line_each(torn, tmp_path, capsys):
    file = tmp_path / "lists" / "rejects.tsv"
    assert main(["check", "image/tiny", *torn, "--rejects", str(file)]) == 0
    assert f"listed in {file}" in capsys.readouterr().out
    lines = [line.split(b"\t") for line in file.read_bytes().splitlines()]
    assert [len(line) for line in lines] == [2] * 9
    folder = os.fsencode(tmp_path / "data" / "a")
    assert {line[0] for line in lines} >= {
        folder + b"/torn 0.png",
        folder + b"/tab\\there.png",
        folder + b"/caf\xe9.png",
    }
    assert all(line[1].startswith(b"undecodable: ") for line in lines)


def test_rejects_are_listed_where_nothing_is_left(tmp_path, capsys):
    (tmp_path / "data" / "a").mkdir(parents=True)
    for number in range(7):
        (tmp_path / "data" / "a" / f"{number}.png").write_bytes(b"torn")
    words = ["image/tiny", "data=folder", f"data.root={tmp_path}/data", f"run_dir={tmp_path}/run"]
    assert main(["check", *words, "--rejects", "all"]) == 1
    said = capsys.readouterr()
    assert said.out.count("undecodable") == 7
    assert "7 undecodable" in said.err
    assert said.err.count("\n") == 1

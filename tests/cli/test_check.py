"""``check``: what is in the data, and exit 1 when it is of no use."""

from __future__ import annotations

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
    assert "note: one example alone: class single; " in said
    assert "add more, or take the class away" in said
    assert "note: all 12 pictures that were looked at are grey" in said
    assert main(["check", *words, "modality.channels=1"]) == 0
    assert "grey" not in capsys.readouterr().out

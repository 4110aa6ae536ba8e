"""Class names of any bytes, from folders through training to what is generated."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from PIL import Image

from scm_media.cli import main
from tests.training.small import SMALL

NAMES = [os.fsdecode(b"caf\xe9"), "cafe\u0301", "tea, green=1", "tab\there"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("names")
    for name in NAMES:
        (root / "data" / name).mkdir(parents=True)
        for number in range(4):
            Image.new("L", (16, 16), 50 * number).save(root / "data" / name / f"{number}.png")
    words = [word for word in SMALL if not word.startswith("data.")]
    words += ["data=folder", f"data.root={root}/data", f"run_dir={root}/run"]
    assert main(["check", "image/tiny", *words]) == 0
    assert main(["train", "image/tiny", *words]) == 0
    assert main(["export", str(root / "run"), str(root / "model")]) == 0
    return root


@pytest.mark.slow
def test_names_survive_to_the_models_description(run):
    for folder in ("run", "model"):
        description = json.loads((run / folder / "model.json").read_text(encoding="utf-8"))
        assert set(description["labels"]["class"]) == {r"caf\xe9", "caf\u00e9", "tea, green=1", "tab\there"}


@pytest.mark.parametrize("label", [*NAMES, r"caf\xe9", "caf\u00e9", "CAF\u00c9", "class=tab\there", None])
@pytest.mark.parametrize("folder", ["run", "model"])
def test_clips_are_generated_by_every_name(run, tmp_path, capsys, folder, label):
    asked = [] if label is None else ["--label", label]
    assert main(["generate", str(run / folder), "-n", "4", *asked, "--json", "--out", str(tmp_path)]) == 0
    clips = json.loads(capsys.readouterr().out)["samples"]
    assert len(list(tmp_path.glob("*.png"))) == 4
    assert len({clip["label"] for clip in clips}) == (4 if label is None else 1)


@pytest.mark.slow
def test_a_terminal_of_plain_utf_8_shows_them(run, tmp_path):
    words = [
        sys.executable,
        "-m",
        "scm_media",
        "generate",
        str(run / "model"),
        "--label",
        b"caf\xe9",
        "--out",
        tmp_path,
    ]
    done = subprocess.run(words, capture_output=True, env={**os.environ, "PYTHONIOENCODING": "utf-8:strict"})
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode().count(r"caf") >= 1

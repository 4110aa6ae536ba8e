"""Names of folders, labels and models inject nothing: neither into terminals, nor YAML, nor cards, nor pages."""

from __future__ import annotations

import io
import json
import os
import re
import sys

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from PIL import Image

from scm_media import recipe
from scm_media.cli import main
from scm_media.cli.proposals import yaml_text
from scm_media.drawing import draw_curve
from scm_media.pipeline import ModelFolder
from scm_media.pipeline.card import format_card
from tests.pipeline.tiny import write_tiny_model
from tests.properties import repeatable

ACTING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
"""Characters that no output may hold: control characters but tab and line feed, line separators, marks of direction."""

NAMES = [
    "plain",
    "a\nseed: 666",
    "a # b: c",
    "${oc.env:HOME}",
    "\\${seed}",
    "\x1b[2J\x1b]0;title\x07",
    'it\'s "quoted"',
    "yes",
    "null",
    "1e3",
    "0x1",
    " leading",
    "- x",
    "{a: b}",
    "!!python",
    "&a *b",
    "\u202egnp",
    "\u2028\x85",
    "日本 é",
    "e\u0301",
    "???",
    b"caf\xe9".decode("utf-8", "surrogateescape"),
]


@repeatable
@given(st.text(st.characters(exclude_characters="\0"), min_size=1))
@example("\udcff\ud800")
@example("a\\\\${b}\\")
def test_text_in_a_written_recipe_is_one_line_and_read_back_as_it_is(text):
    written = yaml_text(text)
    assert not ACTING.search(written) and "\n" not in written
    assert written.encode("utf-8")
    config = OmegaConf.load(io.StringIO(f"b: 1\ndata: {{root: {written}}} # {written}\n"))
    assert OmegaConf.to_container(config, resolve=True) == {"b": 1, "data": {"root": text}} or text == "???"


@pytest.mark.parametrize("name", NAMES)
def test_a_proposal_for_a_folder_of_any_name_composes_to_that_folder(tmp_path, capsys, monkeypatch, name):
    monkeypatch.setattr(recipe, "names", lambda: ("image/folder",))  # all of them are composed for a proposal
    folder = tmp_path / name
    for label in ("cats", name):
        (folder / label).mkdir(parents=True)
        Image.new("L", (8, 8)).save(folder / label / "1.png")
    assert main(["recipes", "--for", str(folder)]) == 0
    text = capsys.readouterr().out
    assert not ACTING.search(text)
    (tmp_path / "mine.yaml").write_text(text, encoding="utf-8")
    config = recipe.compose(str(tmp_path / "mine.yaml"))
    assert config["data"]["root"] == str(folder)
    assert (config["seed"], config["data"]["labels"]) == (0, "subfolder")


def test_check_shows_names_of_classes_without_what_acts_on_a_terminal(tmp_path, capsys):
    for label in ("\x1b[31mcats\nrejected: none", "\u202edogs"):
        (tmp_path / "data" / label).mkdir(parents=True)
        for number in range(2):
            Image.new("L", (16, 16), number).save(tmp_path / "data" / label / f"{number}.png")
    words = ["data=folder", f"data.root={tmp_path}/data", f"run_dir={tmp_path}/run"]
    assert main(["check", "image/tiny", *words]) == 0
    said = capsys.readouterr()
    assert not ACTING.search(said.out + said.err)
    assert r"\x1b[31mcats\nrejected: none 2" in said.out or r"\x1b[31mcats\nrejected: none 1" in said.out


def test_an_error_shows_what_it_names_without_what_acts_on_a_terminal(capsys):
    assert main(["train", "\x1b[2Jimage/\u202etny\x07.yaml"]) == 1
    said = capsys.readouterr().err
    assert not ACTING.search(said)
    assert r"\x1b[2Jimage/\u202etny\x07.yaml: no such file" in said


NASTY = "x\n# Heading\n<img src=x onerror=alert(1)> [a](javascript:b) ![c](http://d) `e` | f \x1b[2J\u202e"


def test_a_card_holds_no_tags_links_or_lines_of_a_models_description(tmp_path):
    names = {"labels": {NASTY: [NASTY, "b"]}, "label_counts": {}, "actions": [NASTY]}
    folder = write_tiny_model(tmp_path / "model", name=NASTY, data=NASTY, licence=NASTY, **names)
    card = format_card(ModelFolder.open(folder))
    assert not ACTING.search(card)
    headings = [line for line in card.splitlines() if line.startswith("#")]
    assert headings == [f"# {card.splitlines()[_title(card)][2:]}", "## Intended use", "## Limits"]
    body = card.partition("\n---\n")[2]
    body = re.sub(r"`[^`]*`", "", body.replace("\\`", ""))  # what is code is shown as it is
    assert "<" not in body
    assert not re.search(r"(?<!\\)\[", body)
    front = yaml.safe_load(card.split("---")[1])
    assert front["license"] == "other"
    assert set(front) == {"library_name", "license", "license_name", "pipeline_tag", "tags"}


def _title(card: str) -> int:
    return next(place for place, line in enumerate(card.splitlines()) if line.startswith("# "))


def test_a_curve_holds_no_tags_of_a_models_figures():
    row = {"sampler": NASTY, "steps": 1, "evaluations": 1, "frechet": 2.0, "guidance": None}
    drawing = draw_curve({"rows": [row, {**row, "evaluations": 2}], "frechet_held_out": None, "num_samples": 9})
    assert "<img" not in drawing
    assert not ACTING.search(drawing)


def test_json_is_ascii_and_says_names_as_they_are(tmp_path, capsys):
    model = write_tiny_model(tmp_path / "model")
    out = tmp_path / "é \x1b[2J\udce9"
    assert main(["generate", str(model), "--json", "--device", "cpu", "--out", str(out)]) == 0
    said = capsys.readouterr()
    assert said.out.isascii() and not ACTING.search(said.out)
    (clip,) = json.loads(said.out)["samples"]
    assert os.path.exists(clip["path"])
    assert not ACTING.search(said.err)
    assert sys.getfilesystemencoding() == "utf-8"

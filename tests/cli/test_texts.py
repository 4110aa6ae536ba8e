"""From a folder of pictures with texts beside them to samples of a prompt, as a user types it."""

from __future__ import annotations

import json
import re

import pytest
import torch

from scm_media.cli import main
from tests.training.captioned import TEXTS, make_encoder, make_folder
from tests.training.small import SMALL

DATA = ("data.", "modality.")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    torch.manual_seed(0)
    return make_encoder(tmp_path_factory.mktemp("encoder") / "tiny-bert")


@pytest.fixture
def inside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return make_folder(tmp_path / "pictures")


def test_a_folder_with_texts_becomes_a_model_of_prompts(inside, encoder, tmp_path, capsys):
    assert main(["recipes", "--for", "pictures"]) == 0
    text = capsys.readouterr().out
    assert "- override /text: minilm" in text and "# Texts: 24 files have captions" in text
    assert "missing:" not in text
    (tmp_path / "mine.yaml").write_text(text)
    small = tmp_path / "small.yaml"
    small.write_text(re.sub(r"(?m)^modality:.*\n", "", text.replace("  - image/folder", "  - image/tiny")))
    given = [f"text.encoder={encoder}", "text.max_tokens=8"]
    assert main(["check", "mine.yaml", *given]) == 0
    said = capsys.readouterr().out
    assert "texts: 2 different ones, 1 for each example" in said
    assert "  a dog barks\n  bells ring far away\n" in said
    assert "tokens by tiny-bert: 6 in the median text, 6 in the longest; 0 texts" in said
    smaller = [word for word in SMALL if not word.startswith(DATA)]
    assert main(["train", "small.yaml", *given, *smaller]) == 0
    capsys.readouterr()

    flags = ["--device", "cpu", "--json", "--out", "out"]
    assert main(["generate", "runs/pictures/main", "--prompt", TEXTS["dark"], "--prompt", "the rain", *flags]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [sample["prompt"] for sample in report["samples"]] == [TEXTS["dark"], "the rain"]
    assert "a_dog_barks" in report["samples"][0]["path"]
    (tmp_path / "list.txt").write_text("the rain\n\n a dog \n", encoding="utf-8")
    assert main(["generate", "runs/pictures/main", "--prompts", "list.txt", "-n", "3", *flags]) == 0
    prompts = [sample["prompt"] for sample in json.loads(capsys.readouterr().out)["samples"]]
    assert prompts == ["the rain", "a dog", "the rain"]


def test_some_files_without_texts_are_noticed(inside, capsys):
    (inside / "003.txt").unlink()
    assert main(["recipes", "--for", "pictures"]) == 0
    text = capsys.readouterr().out
    assert "# Texts: 23 files have captions" in text and "text: {missing: unconditional}" in text


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--prompt", "a shoe"], "the model takes no text (its labels: class); leave the prompt out"),
        (["--negative", "a shoe", "--teacher"], "the model takes no text, so it cannot be steered away"),
        (["--prompts", "none.txt"], "--prompts none.txt: [Errno 2]"),
        (["--prompts", "empty.txt"], "--prompts empty.txt has no line with a prompt"),
    ],
)
def test_prompts_that_cannot_be_taken_say_why(words, problem, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.txt").write_text("\n \n")
    assert main(["generate", "image/fashion", *words]) == 1
    assert problem in capsys.readouterr().err

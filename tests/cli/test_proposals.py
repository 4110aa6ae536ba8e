"""Tests ``recipes --for``: what is proposed for a folder of files, and what is said of it."""

from __future__ import annotations

import re
import sys

import pytest
import soundfile
import torch
from PIL import Image

from scm_media import recipe
from scm_media.build import build
from scm_media.cli import main
from scm_media.cli.next_steps import after_training
from scm_media.cli.proposals import held_out, recipe_name, yaml_text
from scm_media.evaluation.machine import Machine
from scm_media.evaluation.speed import AbsentData
from scm_media.training.context import make_context


def propose(folder, tmp_path, capsys) -> tuple[str, dict]:
    """Returns what the command prints for a folder, and the recipe that it composes to."""
    assert main(["recipes", "--for", str(folder)]) == 0
    text = capsys.readouterr().out
    (tmp_path / "mine.yaml").write_text(text)
    return text, recipe.compose(str(tmp_path / "mine.yaml"))


@pytest.mark.parametrize(
    ("pictures", "expected", "seen"),
    [
        ([("RGB", (100, 70), "red"), ("L", (90, 64), 9)], (64, 3, "crop"), "in colour, 90 to 100 pixels wide"),
        ([("RGB", (30, 28), "gray"), ("L", (29, 30), 9)], (32, 1, "pad"), "grey, 29 to 30 pixels wide and 28 to 30"),
        ([("L", (8, 8), 9), ("L", (9, 9), 9)], (32, 1, "pad"), "grey"),
        ([("RGB", (45, 50), "red"), ("RGB", (47, 45), "blue")], (48, 3, "crop"), "in colour"),
    ],
)
def test_a_proposal_fits_the_pictures_of_its_folder(tmp_path, capsys, pictures, expected, seen):
    folder = tmp_path / "my #1 pictures"
    for name, (mode, size, colour) in zip(("cats", "dogs"), pictures, strict=True):
        (folder / name).mkdir(parents=True)
        Image.new(mode, size, colour).save(folder / name / "1.png")
    (folder / "dogs" / "2.png").write_bytes(b"broken")
    (folder / ".hidden").mkdir()
    text, config = propose(folder, tmp_path, capsys)
    modality = config["modality"]
    assert (modality["size"], modality["channels"], modality["fit"]) == expected
    assert "Seen: 2 of 3 opened files are pictures" in text
    assert seen in text
    assert (config["data"]["root"], config["data"]["labels"]) == (str(folder), "subfolder")
    assert (config["recipe"], config["run_dir"]) == ("my-1-pictures", "runs/my-1-pictures/main")
    assert "2: cats, dogs" in text and "scm-media train my-1-pictures.yaml" in text
    assert config["trainer"]["compile"] is False
    assert config["feature_extractor"] is not None
    assert main(["check", str(tmp_path / "mine.yaml"), f"run_dir={tmp_path}/run"]) == 0


def test_a_proposal_for_a_folder_without_classes_asks_for_no_feature_network(tmp_path, capsys):
    (tmp_path / "flat").mkdir()
    for number in range(3):
        Image.new("L", (16, 16), number).save(tmp_path / "flat" / f"{number}.png")
    _, config = propose(tmp_path / "flat", tmp_path, capsys)
    assert config["data"]["labels"] == "none"
    assert config["feature_extractor"] is None


def test_no_proposal_for_pictures_that_cannot_be_decoded(tmp_path, capsys):
    (tmp_path / "1.png").write_bytes(b"broken")
    assert main(["recipes", "--for", str(tmp_path)]) == 1
    assert "none of the 1 files that were opened can be decoded as a picture" in capsys.readouterr().err


@pytest.mark.parametrize(("content", "expected"), [(["a.xyz"], "it has 1 .xyz"), ([], "it is empty")])
def test_no_proposal_for_files_that_nothing_reads(tmp_path, capsys, monkeypatch, content, expected):
    names = tuple(name for name in recipe.names() if name.endswith(("/folder", "/tiny")))
    monkeypatch.setattr(recipe, "names", lambda: names)  # others are looked at in the same way
    for name in content:
        (tmp_path / name).write_bytes(b"")
    assert main(["recipes", "--for", str(tmp_path)]) == 1
    assert expected in capsys.readouterr().err


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    monkeypatch.setattr(recipe, "names", lambda: ("image/folder",))  # the others are not looked at
    for number in range(8):
        (tmp_path / "pictures" / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32), (number, 0, 0)).save(tmp_path / "pictures" / "ab"[number % 2] / f"{number}.png")
    return tmp_path / "pictures"


def measured(request) -> Machine:
    """Returns made-up speeds for what is asked, which has to be buildable."""
    data = AbsentData((3, 32, 32), request.label_names)
    assert make_context(request.config, build(request.config["modality"], "modality"), data, data).latent_shape
    steps = ("diffusion", "regression", "student", "feature_step", "autoencoder_step")
    kinds = (*steps, "evaluation", "encode", "decode", "load", "feature")
    pairs = [(cost / 1e11, cost / 3e11) for cost in request.costs]
    return Machine("cpu", request.num_processes, "32-true", dict.fromkeys(kinds, pairs[0][0]), pairs, pairs[0])


def test_a_proposal_for_hours_composes_passes_check_and_says_what_it_takes(tmp_path, pictures, capsys, monkeypatch):
    monkeypatch.setattr("scm_media.evaluation.machine.measure_machine", measured)
    monkeypatch.setattr("scm_media.evaluation.machine.count_processes", lambda device: 2)
    assert main(["recipes", "--for", str(pictures), "--hours", "1", "--device", "cpu"]) == 0
    text = capsys.readouterr().out
    (tmp_path / "mine.yaml").write_text(text)
    config = recipe.compose(str(tmp_path / "mine.yaml"))
    assert main(["check", str(tmp_path / "mine.yaml"), f"run_dir={tmp_path}/run"]) == 0
    assert "# Expected: about 54 min of the 60 min:" in text
    assert "passes over 7 files" in text
    assert (config["device"], config["num_devices"], config["strategy"]) == ("cpu", 2, "ddp")
    assert config["precision"] == "32-true"
    assert config["feature_extractor"]["max_steps"] > 1 and config["autoencoder"]["max_steps"] > 1
    assert config["latents"]["automatic"] and config["latents"]["variants"] == 8
    measured_by = f"scm-media evaluate runs/pictures/main -n {config['num_evaluated']}"
    assert 100 <= config["num_evaluated"] <= 10_000 and f"{measured_by} " in text.replace("\n", " ")
    for stage in ("student", "feature_extractor"):
        (tmp_path / "run" / stage).mkdir(parents=True)
        (tmp_path / "run" / stage / "weights.safetensors").write_bytes(b"")
    said = after_training({**config, "run_dir": str(tmp_path / "run")})
    assert f"scm-media evaluate {tmp_path}/run -n {config['num_evaluated']}\n" in said, "train names the same number"


@pytest.mark.parametrize(("num", "expected"), [(8, 0.1), (610, 0.052), (1599, 0.02), (100_000, 0.02)])
def test_of_few_files_more_are_held_out(num, expected):
    assert held_out(num) == expected


@pytest.mark.parametrize(
    ("folder", "name"), [("a b/", "a-b"), ("808", "808"), ("/", "mine"), ("ß", "mine"), ("Meine Töne", "Meine-Tone")]
)
def test_a_proposal_is_named_after_its_folder(tmp_path, pictures, folder, name):
    assert recipe_name(tmp_path / folder) == name
    (tmp_path / "x.yaml").write_text(f"defaults: [image/tiny, _self_]\nrecipe: {yaml_text(name)}\n")
    assert recipe.compose(str(tmp_path / "x.yaml"))["recipe"] == name


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--hours", "0"], "--hours must be"),
        (["--hours", "-1"], "--hours must be"),
        (["--hours", "nan"], "--hours must be"),
        pytest.param(
            ["--hours", "0.001"], "--hours 0.001 is too few: on this machine the least", marks=pytest.mark.slow
        ),
        (["--hours", "1", "--device", "cuda"], "device 'cuda' cannot be used"),
    ],
)
def test_hours_and_devices_that_cannot_be_are_refused(pictures, capsys, monkeypatch, words, expected):
    monkeypatch.setattr("scm_media.evaluation.machine.measure_machine", measured)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["recipes", "--for", str(pictures), *words]) == 1
    assert expected in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--hours", "1"], ["--for", ".", "--device", "cpu"]])
def test_hours_go_with_a_folder_and_a_device_with_hours(words):
    with pytest.raises(SystemExit):
        main(["recipes", *words])


def write_pictures(folder, *names):
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (16, 16), number).save(folder / name)


def write_sounds(folder, *names):
    for name in names:
        tone = torch.sin(2 * torch.pi * 440 * torch.arange(4000) / 8000)
        soundfile.write(folder / name, tone.numpy(), 8000)


@pytest.mark.parametrize(
    ("names", "labels", "said"),
    [
        (["a/1.png", "a/2.png", "b/1.png"], "subfolder", "subfolder  # 2: a, b"),
        (["2024/1.png", "2024/2.png"], "none", "2024 alone is no choice of classes"),
        (["1.png", "2.png", "3.png", "a/1.png", "b/1.png"], "none", "would leave out 3 files"),
        (
            ["a/1.png", "a/2.png", "b/1.png", "b/2.png", "1.png"],
            "subfolder",
            "1 files lie beside them and are left out",
        ),
    ],
)
def test_sub_folders_are_classes_where_they_are_a_choice(tmp_path, capsys, monkeypatch, names, labels, said):
    monkeypatch.setattr(recipe, "names", lambda: ("image/folder",))
    write_pictures(tmp_path / "odd", *names)
    (tmp_path / "odd" / "thumbnails").mkdir()
    (tmp_path / "odd" / "thumbnails" / "notes.txt").write_text("nothing to read")
    text, config = propose(tmp_path / "odd", tmp_path, capsys)
    assert config["data"]["labels"] == labels and said in text and "thumbnails" not in text
    assert (config["feature_extractor"] is None) == (labels == "none")
    assert main(["check", str(tmp_path / "mine.yaml"), f"run_dir={tmp_path}/run"]) == 0


def test_a_folder_of_several_kinds_says_what_is_left_out_and_the_kind_can_be_chosen(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(recipe, "names", lambda: ("audio/folder", "image/folder"))
    folder = tmp_path / "mixed"
    write_pictures(folder, "1.png", "2.png", "3.png")
    write_sounds(folder, "1.wav", "2.wav")
    text, config = propose(folder, tmp_path, capsys)
    assert text.startswith("# 3 files of") and config["modality"]["_target_"].startswith("modalities.image.")
    assert "# Left out: 2 files that --modality audio reads.\n" in text
    assert main(["recipes", "--for", str(folder), "--modality", "audio"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("# 2 files of") and "  - audio/folder\n" in text
    assert "Left out: 3 files that --modality image reads." in text and "8000 Hz, 0.5 s long" in text
    assert main(["recipes", "--for", str(folder), "--modality", "smell"]) == 1
    assert "--modality smell: there is no such modality; there are: audio, image" in capsys.readouterr().err
    for file in folder.glob("*.wav"):
        file.unlink()
    assert main(["recipes", "--for", str(folder), "--modality", "audio"]) == 1
    assert re.search(
        r"--modality audio reads none of these files: it has 3 \.png; audio reads", capsys.readouterr().err
    )


def test_keys_of_the_modality_can_be_given_with_a_folder(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(recipe, "names", lambda: ("image/folder",))
    write_pictures(tmp_path / "odd", "1.png", "2.png")
    assert main(["recipes", "--for", str(tmp_path / "odd"), "modality.size=24", "modality.background=0.5"]) == 0
    (tmp_path / "mine.yaml").write_text(capsys.readouterr().out)
    modality = recipe.compose(str(tmp_path / "mine.yaml"))["modality"]
    assert (modality["size"], modality["background"], modality["channels"]) == (24, 0.5, 1)
    for words, said in (
        ("modality.sise=32", "no key takes the override 'modality.sise' (nearest: modality.size"),
        ("modality.size=0", "modality.size must be at least 1, got 0"),
        ("modality.size=abc", "modality.size must be a whole number, got 'abc'"),
        ("modality.size=[", "cannot be read"),
        ("data.root=x", "only keys of the modality are given"),
        ("image/tiny", "only keys of the modality are given"),
    ):
        assert main(["recipes", "--for", str(tmp_path / "odd"), words]) == 1
        assert said in capsys.readouterr().err


@pytest.mark.parametrize(("captioned", "said"), [(1, "1 of 3 files alone have captions"), (2, "2 files have captions")])
def test_a_model_of_texts_is_proposed_where_most_files_have_them(tmp_path, capsys, monkeypatch, captioned, said):
    monkeypatch.setattr(recipe, "names", lambda: ("image/folder",))
    folder = tmp_path / "told"
    write_pictures(folder, "1.png", "2.png", "3.png")
    for number in range(captioned):
        (folder / f"{number + 1}.txt").write_text("a grey square")
    text, config = propose(folder, tmp_path, capsys)
    assert said in text and (config["text"] is not None) == (captioned == 2)


def test_recipes_of_plugins_are_asked_for_files_that_no_recipe_for_folders_reads(tmp_path, capsys, monkeypatch):
    asked = []
    compose = recipe.compose
    monkeypatch.setattr(recipe, "names", lambda: ("image/folder", "video/tiny"))
    monkeypatch.setattr(recipe, "compose", lambda name, *rest: asked.append(name) or compose(name, *rest))
    write_pictures(tmp_path / "some", "1.png", "2.png", "3.png")
    assert main(["recipes", "--for", str(tmp_path / "some")]) == 0
    assert asked == ["image/folder"]
    for number in range(4):
        (tmp_path / "some" / f"{number}.mp4").write_bytes(b"broken")
    assert main(["recipes", "--for", str(tmp_path / "some")]) == 1
    assert asked == ["image/folder", "image/folder", "video/tiny"]
    assert "can be decoded as a video" in capsys.readouterr().err


def test_few_files_are_warned_of(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(recipe, "names", lambda: ("image/folder",))
    write_pictures(tmp_path / "few", "1.png", "2.png", "3.png")
    text, _ = propose(tmp_path / "few", tmp_path, capsys)
    assert "# warning: 3 files are few: a model of them repeats them" in text
    assert main(["recipes", "--for", str(tmp_path / "few")]) == 0
    assert "\nwarning: 3 files are few" in capsys.readouterr().err
    write_pictures(tmp_path / "more", *(f"{number}.png" for number in range(100)))
    text, _ = propose(tmp_path / "more", tmp_path, capsys)
    assert "warning" not in text


@pytest.mark.slow
def test_what_goes_into_a_file_is_said_on_the_terminal_too(tmp_path, pictures, capsys, monkeypatch):
    monkeypatch.setattr("scm_media.evaluation.machine.measure_machine", measured)
    assert main(["recipes", "--for", str(pictures), "--hours", "1", "--device", "cpu"]) == 0
    said = capsys.readouterr()
    assert "Expected: about 54 min of the 60 min:\n" in said.err
    assert said.err.endswith(
        "next: scm-media check FILE.yaml and scm-media train FILE.yaml, FILE being what you write this to\n"
    )
    assert "defaults:" not in said.err and "hours: 1  # train warns" in said.out
    (tmp_path / "mine.yaml").write_text(said.out)
    assert recipe.compose(str(tmp_path / "mine.yaml"))["hours"] == 1


def test_the_next_commands_name_the_file_that_the_proposal_is_sent_to(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(recipe, "names", lambda: ("image/folder",))
    write_pictures(tmp_path / "odd", "1.png", "2.png")
    monkeypatch.chdir(tmp_path)
    for name, shown in (("my odd.yaml", "'my odd.yaml'"), ("odd.txt", "FILE.yaml")):
        with open(name, "w") as file, monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", file)
            assert main(["recipes", "--for", "odd"]) == 0
        assert f"next: scm-media check {shown} and scm-media train {shown}" in capsys.readouterr().err
    assert recipe.compose("my odd.yaml")["recipe"] == "odd"


def test_a_path_that_is_no_folder_and_a_folder_of_other_files_say_what_is_wanted(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(recipe, "names", lambda: ("image/folder", "video/folder"))
    (tmp_path / "a.txt").write_text("")
    assert main(["recipes", "--for", str(tmp_path / "a.txt")]) == 1
    assert "no such folder: it is a file; give the folder that it lies in" in capsys.readouterr().err
    assert main(["recipes", "--for", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert "it has 1 .txt" in said and re.search(r"image reads .*\.png.*; video reads .*\.mp4", said)

"""``edit``: every task on real files, one JSON object, files that say how they were made, and mistakes in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from modalities.image import ImageModality, read_metadata
from scm_media.cli import main
from tests.pipeline.waves import WaveModality, write_wave_model

PIXELS = ImageModality(size=16, channels=1)
WAVES = WaveModality()


@pytest.fixture
def picture(tmp_path) -> Path:
    """A picture 16 × 16, dark on top and bright below."""
    path = tmp_path / "given.png"
    PIXELS.write(path, torch.linspace(-1, 1, 16)[None, :, None].expand(1, 16, 16), {})
    return path


@pytest.fixture
def waves(tmp_path, monkeypatch) -> tuple[str, Path]:
    """A model of waves, and a file of three seconds."""
    monkeypatch.setenv("SCM_MEDIA_ALLOW", "tests")
    WAVES.write(tmp_path / "wave.txt", torch.sin(torch.arange(48.0) / 5)[None] / 2, {})
    return str(write_wave_model(tmp_path / "waves", student_label_dropout=0.1)), tmp_path / "wave.txt"


def edited(capsys, *words: object) -> dict:
    """The report of an edit that succeeds."""
    assert main(["edit", *map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_half_a_picture_is_kept_to_the_bit_and_files_say_how_they_were_made(model, picture, tmp_path, capsys):
    words = ("--task", "inpaint", "--input", picture, "--label", "circle", "--seed", "5", "-n", "2")
    report = edited(capsys, model, *words, "--region", "8", "16", "0", "16", "--out", tmp_path / "out")
    assert set(report) == {"samples", "steps", "evaluations", "warnings"} | {
        "seconds_model",
        "seconds_decode",
        "seconds_total",
    }
    assert report["steps"] == report["evaluations"] == 16
    assert [Path(clip["path"]).name for clip in report["samples"]] == ["5-00000-circle.png", "5-00001-circle.png"]
    given, *made = (PIXELS.read(path) for path in (picture, *(clip["path"] for clip in report["samples"])))
    for sample in made:
        assert torch.equal(sample[:, :8], given[:, :8])
        assert not torch.equal(sample[:, 8:], given[:, 8:])
    assert not torch.equal(*made)
    found = read_metadata(report["samples"][0]["path"])
    assert (found["task"], found["input"], found["region"]) == ("inpaint", picture.name, [8, 16, 0, 16])
    assert (found["model"], found["seed"], found["index"], found["label"]) == (Path(model).name, 5, 0, "circle")
    assert "keep" not in found


def test_a_mask_file_says_what_is_made_anew(model, picture, tmp_path, capsys):
    mask = Image.new("L", (16, 16), 0)
    mask.paste(255, (4, 4, 12, 12))
    mask.save(tmp_path / "mask.png")
    words = ("--task", "inpaint", "--input", picture, "--label", "circle", "--mask", tmp_path / "mask.png")
    report = edited(capsys, model, *words, "--steps", "2", "--out", tmp_path / "out")
    given, made = PIXELS.read(picture), PIXELS.read(report["samples"][0]["path"])
    changed = (given != made)[0]
    assert not changed[:4].any() and not changed[12:].any() and not changed[:, :4].any() and not changed[:, 12:].any()
    assert changed[4:12, 4:12].float().mean() > 0.5
    assert report["evaluations"] == 2


def test_a_label_that_the_network_needs_is_drawn_and_that_is_said(model, picture, tmp_path, capsys):
    words = [
        "edit",
        model,
        "--task",
        "inpaint",
        "--input",
        str(picture),
        "--region",
        "0",
        "4",
        "0",
        "4",
        "--steps",
        "1",
    ]
    assert main([*words, "--out", str(tmp_path / "out")]) == 0
    assert "needs the class of a sample: drawn for each sample; set it with --label L" in capsys.readouterr().err
    assert main([*words, "--label", "circle", "--out", str(tmp_path / "out")]) == 0
    assert "drawn" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("task", "words", "size", "kept"),
    [
        ("continue", ("--keep", "0.5"), 32, (slice(0, 8), slice(40, 48))),
        ("continue", ("--keep", "1", "--duration", "6", "--overlap", "0.25"), 96, (slice(0, 16), slice(32, 48))),
        ("prepend", ("--keep", "0.5"), 32, (slice(24, 32), slice(0, 8))),
        ("interpolate", ("--keep", "0.25", "--duration", "4"), 64, (slice(60, 64), slice(44, 48))),
        ("inpaint", ("--region", "0.5", "1.5"), 48, (slice(24, 48), slice(24, 48))),
    ],
)
def test_tasks_along_time_keep_their_part(waves, tmp_path, capsys, task, words, size, kept):
    model, path = waves
    words = ("--task", task, "--input", path, *words, "--times", "1.5", "0.8", "--out", tmp_path / "out")
    report = edited(capsys, model, *words)
    assert report["steps"] == 2
    (clip,) = report["samples"]
    assert clip["label"] is None, "the network did without its label now and then"
    made, given = WAVES.read(clip["path"]), WAVES.read(path)
    assert made.shape == (1, size)
    assert torch.allclose(made[:, kept[0]], given[:, kept[1]], atol=1e-7)


def test_generate_goes_on_in_windows(waves, tmp_path, capsys):
    model, _ = waves
    words = ["generate", model, "--duration", "5", "--steps", "2", "--label", "calm", "--json", "--out", str(tmp_path)]
    assert main(words) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["evaluations"] == 3 * 2
    path = report["samples"][0]["path"]
    assert WAVES.read(path).shape == (1, 80)
    assert "# duration: 5.0" in Path(path).read_text()
    assert main([*words, "--overlap", "1"]) == 0
    assert json.loads(capsys.readouterr().out)["evaluations"] == 4 * 2
    assert "# overlap: 1.0" in Path(path).read_text()


def test_help_tells_the_tasks_and_with_a_model_how_long_clips_can_be(waves, capsys):
    model, _ = waves
    for words, told in (
        (["edit", "--help"], "interpolate  the sample starts as the file starts"),
        (["edit", model, "--help"], "beyond 2 in windows that overlap"),
        (["generate", model, "--help"], "--overlap X"),
    ):
        with pytest.raises(SystemExit) as exit:
            main(words)
        assert exit.value.code == 0
        assert told in capsys.readouterr().out


def test_what_is_missing_is_a_mistake_of_usage(model, picture, capsys):
    for words, said in (
        (["--task", "inpaint"], "give a MODEL"),
        ([model, "--task", "inpaint"], "give --input"),
        ([model, "--input", str(picture)], "give --task"),
        ([model, "--input", str(picture), "--task", "inpaint", "--size", "24"], "unrecognized arguments: --size 24"),
    ):
        with pytest.raises(SystemExit) as exit:
            main(["edit", *words])
        assert exit.value.code == 2
        assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            ["--task", "inpant"],
            "there is no task 'inpant'; there are: continue, prepend, interpolate, animate, inpaint",
        ),
        (["--task", "continue"], "samples of this modality have no duration to go on along; use --task inpaint"),
        (["--task", "animate"], "have no duration"),
        (["--task", "inpaint"], "give --region or --mask, and not both"),
        (["--task", "inpaint", "--region", "0", "8", "0"], "region must be first and last index along each axis (4 "),
        (
            ["--task", "inpaint", "--region", "0", "8", "8", "20"],
            "axis 2 must be FIRST LAST with 0 ≤ FIRST < LAST ≤ 16",
        ),
        (["--task", "inpaint", "--region", "0", "8", "0", "8", "--steps", "0"], "--steps must be at least 1, got 0"),
        (["--task", "inpaint", "--region", "0", "8", "0", "8", "--label", "boot"], "knows no label 'boot'"),
        (["--task", "inpaint", "--region", "0", "8", "0", "8", "--format", "gif"], "image is written as .png"),
        (["--task", "inpaint", "--mask", "nowhere.png"], "nowhere.png: no such file"),
        (["--task", "inpaint", "--region", "0", "8", "0", "8", "--input", "pyproject.toml"], "pyproject.toml"),
    ],
)
def test_a_mistake_is_one_line_and_exit_1(model, picture, tmp_path, capsys, words, expected):
    given = [] if "--input" in words else ["--input", str(picture)]
    label = [] if "--label" in words else ["--label", "circle"]
    assert main(["edit", model, *given, *label, "--out", str(tmp_path / "out"), *words]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert expected in said.err
    assert not (tmp_path / "out").exists()


def test_a_wave_that_is_shorter_than_what_is_to_be_kept(waves, tmp_path, capsys):
    model, path = waves
    words = ["edit", model, "--task", "continue", "--input", str(path), "--keep", "4", "--duration", "8"]
    assert main([*words, "--out", str(tmp_path / "out")]) == 1
    assert "keep must be above 0 and at most 3 s, all that the input has; got 4 s" in capsys.readouterr().err

"""``generate`` and ``export``: files that say how they were made, one JSON object, flags of the model's modality."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from modalities.image import ImageModality, read_metadata
from scm_media.cli import main


def test_clips_carry_how_they_were_made(model, tmp_path, capsys):
    assert main(["generate", model, "-n", "2", "--label", "circle", "--seed", "5", "--out", str(tmp_path)]) == 0
    said = capsys.readouterr()
    paths = [Path(line) for line in said.out.splitlines()]
    assert [path.name for path in paths] == ["5-00000-circle.png", "5-00001-circle.png"]
    found = read_metadata(paths[1])
    assert (found["model"], found["seed"], found["index"], found["label"]) == (Path(model).name, 5, 1, "circle")
    assert "2 samples" in said.err


def test_what_a_modality_remarks_on_a_clip_is_said_beside_its_name(model, tmp_path, capsys, monkeypatch):
    write = ImageModality.write

    def remarking(self, path, sample, metadata):
        write(self, path, sample, metadata)
        return "too bright, turned down" if metadata["index"] == 1 else None

    monkeypatch.setattr(ImageModality, "write", remarking)
    assert main(["generate", model, "-n", "3", "--steps", "1", "--json", "--out", str(tmp_path)]) == 0
    said = capsys.readouterr()
    report = json.loads(said.out)
    assert report["warnings"] == [f"{report['samples'][1]['path']}: too bright, turned down"]
    assert f"warning: {report['warnings'][0]}\n" in said.err


def test_json_is_one_object_with_the_promised_fields(model, tmp_path, capsys):
    assert main(["generate", model, "-n", "3", "--steps", "1", "--json", "--out", str(tmp_path)]) == 0
    report = json.loads(capsys.readouterr().out)
    seconds = {"seconds_model", "seconds_decode", "seconds_total"}
    assert set(report) == {"samples", "steps", "evaluations", "warnings"} | seconds
    assert set(report["samples"][0]) == {"path", "label", "seed", "index"}
    assert [clip["index"] for clip in report["samples"]] == [0, 1, 2]
    assert report["steps"] == report["evaluations"] == 1
    assert report["seconds_total"] >= report["seconds_model"] + report["seconds_decode"]
    for clip in report["samples"]:
        assert main(["generate", model, "--label", clip["label"], "--out", str(tmp_path)]) == 0, (
            "a label can be given back"
        )
        capsys.readouterr()


def test_teacher_counts_its_evaluations(model, tmp_path, capsys):
    assert main(["generate", model, "--teacher", "--steps", "4", "--json", "--out", str(tmp_path)]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["steps"], report["evaluations"]) == (4, 7)


def test_extents_of_the_modality_are_flags(model, tmp_path, capsys):
    assert main(["generate", model, "--size", "24", "--out", str(tmp_path)]) == 0
    with Image.open(capsys.readouterr().out.strip()) as picture:
        assert picture.size == (24, 24)
    with pytest.raises(SystemExit) as exit:
        main(["generate", model, "--help"])
    assert exit.value.code == 0
    assert "--size X" in capsys.readouterr().out
    with pytest.raises(SystemExit) as exit:
        main(["generate", model, "--duration", "3"])
    assert exit.value.code == 2


@pytest.mark.parametrize("words", [["--size", "24", "MODEL", "-n", "1"], ["-n", "1", "--size", "24", "MODEL"]])
def test_flags_may_stand_before_the_model(model, tmp_path, capsys, words):
    placed = [model if word == "MODEL" else word for word in words]
    assert main(["generate", *placed, "--out", str(tmp_path)]) == 0
    with Image.open(capsys.readouterr().out.strip()) as picture:
        assert picture.size == (24, 24)


@pytest.mark.parametrize(("words", "code"), [(["-n", "1", "--help"], 0), (["--size", "24"], 2), (["--siz", "24"], 2)])
def test_without_a_model_help_is_shown_or_the_model_asked_for(capsys, words, code):
    with pytest.raises(SystemExit) as exit:
        main(["generate", *words])
    assert exit.value.code == code
    said = capsys.readouterr()
    assert "--guidance-interval LOW HIGH" in said.out if code == 0 else "give a MODEL" in said.err


def test_samples_on_the_way_to_another_seed_have_names_and_records_of_their_own(model, tmp_path, capsys):
    files = []
    for walk in ((), ("--walk", "8", "0.25"), ("--walk", "8", "1"), ("--seed", "8")):
        assert main(["generate", str(model), "--label", "circle", *walk, "--out", str(tmp_path), "--json"]) == 0
        (sample,) = json.loads(capsys.readouterr().out)["samples"]
        files.append(Path(sample["path"]))
    assert len(set(files)) == 4 and files[1].name.startswith("0-00000-walk-8-0.25-")
    start, between, end, other = (np.asarray(Image.open(file)).astype(int) for file in files)
    assert np.abs(end - other).max() <= 1 < np.abs(between - start).max()
    assert main(["generate", str(model), "--walk", "x", "1", "--out", str(tmp_path)]) == 1
    assert "--walk takes a seed and a fraction, such as 7 0.5, got x 1" in capsys.readouterr().err


def test_guidance_can_be_kept_to_an_interval_of_times(model, tmp_path, capsys):
    guided = ["generate", model, "--guidance", "3", "--steps", "2", "--json", "--out", str(tmp_path)]
    assert main([*guided, "--guidance-interval", "0.5", "1.3"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["evaluations"] == 3, "one call at t_max, two at 1.1"
    assert read_metadata(report["samples"][0]["path"])["guidance_interval"] == [0.5, 1.3]
    assert main(guided) == 0
    assert json.loads(capsys.readouterr().out)["evaluations"] == 4


def test_no_space_left_names_the_clip_and_leaves_no_part_of_it(model, tmp_path, capsys, monkeypatch):
    def full(self, path, sample, metadata):
        Path(path).write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(ImageModality, "write", full)
    assert main(["generate", model, "--label", "circle", "--out", str(tmp_path)]) == 1
    clip = tmp_path / "0-00000-circle.png"
    line = f"scm-media generate: {clip}: No space left on device; free some space or choose another --out\n"
    assert capsys.readouterr().err == line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--label", "cirle"], "circle"),
        (["--guidance", "2", "--guidance-interval", "1.2", "0.3"], "guidance interval must be (low, high)"),
        (["--guidance-interval", "0.3", "1.2"], "give a guidance scale"),
        (["--steps", "0"], "--steps must be at least 1, got 0"),
        (["--times", "1.0", "1.2"], "times must descend"),
        (["-n", "0"], "-n must be at least 1, got 0"),
        (["--batch-size", "0"], "--batch-size must be at least 1, got 0"),
        (["--format", "gif"], "image is written as .png"),
        (["--device", "cuda:99"], "cuda:99"),
    ],
)
def test_a_mistake_is_one_line_and_exit_1(model, tmp_path, capsys, words, expected):
    assert main(["generate", model, "--out", str(tmp_path / "out"), *words]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert expected in said.err
    assert not (tmp_path / "out").exists()


def test_unknown_model(capsys):
    assert main(["generate", "image/nothing"]) == 1
    assert "there is no model 'image/nothing'" in capsys.readouterr().err


def test_out_that_is_a_file(model, tmp_path, capsys):
    (tmp_path / "out").write_text("")
    assert main(["generate", model, "--out", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err == f"scm-media generate: {tmp_path / 'out'}: File exists\n"


def test_export_makes_a_folder_that_generates_the_same(model, tmp_path, capsys):
    target = str(tmp_path / "exported")
    assert main(["export", model, target, "--no-teacher"]) == 0
    assert not (tmp_path / "exported" / "teacher.safetensors").exists()
    for source in (model, target):
        assert main(["generate", source, "--out", str(tmp_path / Path(source).name)]) == 0
    first, second = capsys.readouterr().out.splitlines()[-2:]
    with Image.open(first) as one, Image.open(second) as other:
        assert one.tobytes() == other.tobytes()


def test_export_onto_itself_is_refused(model, capsys):
    assert main(["export", model, model]) == 1
    assert "is the model's own folder" in capsys.readouterr().err


def test_evaluate_without_statistics_says_what_is_missing(model, capsys):
    assert main(["evaluate", model, "--num-samples", "8"]) == 1
    said = capsys.readouterr().err
    assert "no reference" in said
    assert said.count("\n") == 1


def test_evaluate_compares_two_folders_in_the_features_of_a_model(model, tmp_path, capsys):
    for seed, name in ((1, "one"), (2, "other")):
        words = ["generate", model, "-n", "8", "--seed", str(seed), "--out", str(tmp_path / name), "--json"]
        assert main(words) == 0
    capsys.readouterr()
    folders = ["--samples", str(tmp_path / "one"), "--reference", str(tmp_path / "other")]
    assert main(["evaluate", model, *folders, "--json", "--out", str(tmp_path / "figures")]) == 0
    metrics = json.loads(capsys.readouterr().out)
    assert metrics["num_samples"] == metrics["num_reference"] == metrics["features"]["dimension"] == 8
    assert metrics["too_few"] is True
    assert metrics["frechet"] > 0
    assert json.loads((tmp_path / "figures" / "metrics.json").read_text()) == metrics
    assert (
        main(["evaluate", model, "--samples", str(tmp_path / "one"), "--reference", str(tmp_path / "one"), "--json"])
        == 0
    )
    assert json.loads(capsys.readouterr().out)["frechet"] == pytest.approx(0, abs=1e-3)
    with pytest.raises(SystemExit):
        main(["evaluate", "--samples", str(tmp_path / "one")])
    assert "--samples goes with --reference DIR, or with a MODEL" in capsys.readouterr().err

"""Evaluating a tiny model: the fields, resumption, rows measured apart, and what is refused."""

from __future__ import annotations

import importlib
import json
from dataclasses import replace

import pytest
import torch
import yaml

import scm_media
from scm_media.evaluation import Reference, report, rows
from scm_media.evaluation.report import write_report_page
from scm_media.evaluation.row_text import compared_teacher
from tests.evaluation.quick import evaluate
from tests.pipeline.tiny import DESCRIPTION, write_tiny_model

# The package's function of the same name hides it.
evaluate_module = importlib.import_module("scm_media.evaluation.evaluate")


def _figures(result):
    return [
        {key: value for key, value in row.items() if key not in ("sampler", "guidance", "seconds_per_sample")}
        for row in result["rows"]
    ]


@pytest.fixture(scope="module")
def pipeline(evaluated_model):
    return scm_media.load(evaluated_model, "cpu")


@pytest.fixture(scope="module")
def result(pipeline):
    return evaluate(pipeline, num_samples=120, rows=("teacher", 1, 2, "teacher:1"))


def test_the_fields_are_those_of_the_command_line(result):
    assert {"model", "features", "num_samples", "rows", "frechet_held_out", "frechet_teacher"} <= result.keys()
    assert [(row["sampler"], row["steps"], row["evaluations"]) for row in result["rows"]] == [
        ("heun", 3, 5),
        ("consistency", 1, 1),
        ("consistency", 2, 2),
        ("heun", 1, 1),
    ]
    teacher, one, two, _ = result["rows"]
    assert result["frechet_teacher"] == teacher["frechet"]
    assert result["frechet_ratio_1_step"] == pytest.approx(one["frechet"] / teacher["frechet"])
    assert result["frechet_ratio_2_step"] == pytest.approx(two["frechet"] / teacher["frechet"])
    assert result["speedup_2_step"] == pytest.approx(teacher["seconds_per_sample"] / two["seconds_per_sample"])
    network, decode = result["network_seconds_per_sample"], result["decode_seconds_per_sample"]
    assert result["speedup_bound"] == pytest.approx((5 * network + decode) / (2 * network + decode))
    assert 0 <= teacher["accuracy"] <= 1
    assert json.loads(json.dumps(result)) == result


def test_rows_are_measured_at_the_scales_that_are_asked_for(pipeline, result, tmp_path):
    wanted = {"num_samples": 120, "rows": ("teacher", 2), "work": tmp_path / "work"}
    one = evaluate(pipeline, guidance=(3.0,), **wanted)
    teacher, student = one["rows"]
    assert [(row["guidance"], row["evaluations"]) for row in one["rows"]] == [(3.0, 2 * 5), (3.0, 2 * 2)]
    assert one["frechet_ratio_2_step"] == pytest.approx(student["frechet"] / teacher["frechet"])
    several = evaluate(pipeline, guidance=(1.0, 3.0), **wanted)
    assert [row["guidance"] for row in several["rows"]] == [1.0, 1.0, 3.0, 3.0]
    expected = [result["rows"][0], result["rows"][2], teacher, student]
    for row, known in zip(several["rows"], expected, strict=True):
        for key in ("frechet", "evaluations", "accuracy"):
            assert row[key] == pytest.approx(known[key], rel=1e-4)
    assert teacher["frechet"] != pytest.approx(result["rows"][0]["frechet"], rel=1e-2)
    assert (
        several["frechet_ratio_2_step"] is several["speedup_2_step"] is several["teacher_threshold"]["passed"] is None
    )
    assert "| heun | 3 | 3 | 10 |" in report(several)
    write_report_page(several, tmp_path / "report.html")
    assert "consistency, guidance 3<" in (tmp_path / "report.html").read_text()
    assert "guidance" not in report(result)


def test_a_scale_that_cannot_be_is_refused_before_anything_is_measured(evaluated_model, tmp_path):
    pipeline = scm_media.load(evaluated_model, "cpu")
    pipeline.folder = replace(
        pipeline.folder, description=replace(pipeline.folder.description, guidance_max=2.0, label_dropout=0.1)
    )
    with pytest.raises(ValueError, match=r"guidance must lie in \[1, 2\.0\].*got 3"):
        evaluate(pipeline, num_samples=20, rows=("teacher", 1), guidance=(1.0, 3.0), work=tmp_path / "work")
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize(("num_samples", "num_train", "side"), [(8, 600, "samples"), (120, 8, "reference samples")])
def test_too_few_samples_and_too_little_training_data_are_flagged(
    pipeline, result, monkeypatch, num_samples, num_train, side
):
    assert (result["too_few"], result["num_reference"]) == (False, 600)
    assert "says little" not in report(result)
    original = evaluate_module.load_reference

    def load_reference(*arguments):
        network, reference = original(*arguments)
        return network, replace(reference, num_train=num_train)

    monkeypatch.setattr(evaluate_module, "load_reference", load_reference)
    few = evaluate(pipeline, num_samples=num_samples, rows=(1,))
    assert (few["too_few"], few["num_reference"]) == (True, num_train)
    assert f"- only 8 {side} for 8 feature dimensions: the Fréchet distance says little" in report(few)


def test_a_row_may_name_the_teachers_solver(pipeline, result):
    words = ("teacher", "teacher:heun", "teacher:heun:3", "teacher:2", "teacher:dpm_solver:2", "teacher:dpm_solver")
    parsed = [rows.Row.parse(word, pipeline) for word in words]
    assert [(row.sampler, row.steps) for row in parsed] == [("heun", 3)] * 3 + [
        ("heun", 2),
        ("dpm_solver", 2),
        ("dpm_solver", 3),
    ]
    assert len({row.key for row in parsed}) == 4
    own, other, same = evaluate(
        pipeline, num_samples=120, rows=("teacher:3", "teacher:dpm_solver:3", "teacher:heun:3")
    )["rows"]
    assert [row["evaluations"] for row in (own, other, same)] == [5, 3, 5]
    assert own["frechet"] == same["frechet"] == pytest.approx(result["rows"][0]["frechet"], rel=1e-4)
    assert other["frechet"] != pytest.approx(own["frechet"], rel=1e-3)


def test_students_are_compared_with_the_models_own_teacher_whatever_else_is_measured(pipeline, result):
    found = evaluate(pipeline, num_samples=120, rows=("teacher:dpm_solver:40", "teacher", 2))
    assert found["teacher"] == result["teacher"] == {"sampler": "heun", "steps": 3}
    assert found["rows"][0]["evaluations"] > found["rows"][1]["evaluations"], "the other has more evaluations"
    assert found["frechet_teacher"] == found["rows"][1]["frechet"]
    assert compared_teacher(found)["sampler"] == "heun"
    assert found["num_held_out"] == 200, "the fewest that a distance is known of"
    assert f"Fréchet distance of {found['num_held_out']} held-out samples to the training data" in report(found)


def test_figures_do_not_depend_on_the_batch_size(pipeline, result):
    other = evaluate(pipeline, num_samples=120, rows=(2,), batch_size=7)
    assert other["rows"][0]["frechet"] == pytest.approx(result["rows"][2]["frechet"], rel=1e-4)
    assert other["frechet_ratio_2_step"] is None
    assert other["speedup_2_step"] is None


def test_an_interrupted_evaluation_goes_on(pipeline, result, tmp_path, monkeypatch):
    monkeypatch.setattr(rows, "CHUNK", 50)
    made = []
    original = rows._measure_chunk

    def interrupted(*arguments):
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(arguments[2][0])
        return original(*arguments)

    monkeypatch.setattr(rows, "_measure_chunk", interrupted)
    with pytest.raises(KeyboardInterrupt):
        evaluate(pipeline, num_samples=120, rows=("teacher",), work=tmp_path)
    made.clear()
    monkeypatch.setattr(rows, "_measure_chunk", lambda *arguments: made.append(arguments[2][0]) or original(*arguments))
    evaluate(pipeline, num_samples=120, rows=("teacher",), work=tmp_path)
    assert made == [100]
    evaluate(pipeline, num_samples=120, rows=(1, 2), work=tmp_path)
    made.clear()
    merged = evaluate(pipeline, num_samples=120, rows=("teacher", 1, 2), work=tmp_path)
    assert made == []
    for row, expected in zip(_figures(merged), _figures(result), strict=False):
        assert row == pytest.approx(expected, rel=1e-4)
    evaluate(pipeline, num_samples=120, rows=(1,), work=tmp_path, seed=1)
    assert made == [0, 50, 100]


def test_searched_times_leave_the_chunks_of_other_rows_valid(pipeline, tmp_path, monkeypatch):
    made = []
    original = rows._measure_chunk
    monkeypatch.setattr(
        rows, "_measure_chunk", lambda *arguments: made.append(arguments[1].key) or original(*arguments)
    )
    wanted = {"num_samples": 20, "rows": ("teacher", 1, 2), "work": tmp_path}
    before = evaluate(pipeline, **wanted)
    monkeypatch.setattr(pipeline, "settings", replace(pipeline.settings, times=None, guidance_interval=None))
    evaluate(pipeline, **wanted)
    assert len(made) == 3
    monkeypatch.setattr(pipeline, "settings", replace(pipeline.settings, times={"2": [1.5, 0.6]}))
    after = evaluate(pipeline, **wanted)
    assert made[3:] == ["student-consistency-2"]
    assert after["rows"][2]["frechet"] != before["rows"][2]["frechet"]


def test_chunks_of_the_same_network_exported_again_are_taken(pipeline, tmp_path):
    wanted = {"num_samples": 20, "rows": (1,), "work": tmp_path / "work"}
    evaluate(pipeline, **wanted)
    again = scm_media.load(pipeline.save_pretrained(tmp_path / "again"), "cpu")
    evaluate(again, **wanted)
    half = scm_media.load(pipeline.save_pretrained(tmp_path / "half", dtype=torch.float16), "cpu")
    assert len(list((tmp_path / "work").iterdir())) == 1
    evaluate(half, **wanted)
    assert len(list((tmp_path / "work").iterdir())) == 2


def test_progress_is_told(pipeline):
    told = []
    evaluate(pipeline, num_samples=20, rows=(1,), progress=lambda *what: told.append(what))
    assert told == [("student-consistency-1", 20, 20)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rows": (0,)}, "a row is a number of steps, teacher, teacher:STEPS or teacher:SOLVER:STEPS, got 0"),
        ({"rows": ("techer",)}, "got 'techer'"),
        ({"rows": ("2:heun",)}, "got '2:heun'"),
        ({"rows": ("teacher:heun:0",)}, "got 'teacher:heun:0'"),
        ({"rows": ("teacher:4:heun",)}, "got 'teacher:4:heun'"),
        ({"rows": ("teacher:dpmsolver:4",)}, r"row 'teacher:dpmsolver:4' must be one of heun, .*nearest: dpm_solver"),
        ({"features": "inception"}, "no feature network 'inception'"),
        ({"num_samples": 1}, "num_samples must be at least 2"),
    ],
)
def test_bad_requests_are_refused(pipeline, arguments, message):
    with pytest.raises(ValueError, match=message):
        evaluate(pipeline, **{"num_samples": 20, **arguments})


def test_a_run_gets_its_statistics_from_its_recipe(tmp_path):
    run = write_tiny_model(tmp_path / "run", run_folder=True)
    data = {"_target_": "scm_media.data.shapes.ShapesDataset", "num": 300, "held_out": 0.2, "seed": 0, "root": None}
    config = {"modality": DESCRIPTION.modality, "data": data}
    (run / "recipe.yaml").write_text(yaml.safe_dump(config))
    result = evaluate(scm_media.load(run, "cpu"), num_samples=60, rows=(1,))
    reference = Reference.load(run / "feature_extractor" / "reference.safetensors")
    assert reference.num_train == 300
    assert result["frechet_held_out"] == reference.held_out_distance(60)
    (run / "recipe.yaml").unlink()
    assert _figures(evaluate(scm_media.load(run, "cpu"), num_samples=60, rows=(1,))) == _figures(result)


def test_a_model_without_statistics_is_refused(tiny_model_without_reference):
    with pytest.raises(ValueError, match="holds no reference"):
        evaluate(scm_media.load(tiny_model_without_reference, "cpu"), num_samples=20)


def test_report_and_page_show_every_row(result, tmp_path):
    text = report(result)
    assert text.count("| heun |") == 2
    assert f"{result['frechet_teacher']:.4g}" in text
    assert "120 samples, 8-dimensional features" in text
    write_report_page(result, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert all(f">{row['frechet']:.3g}</text>" in page for row in result["rows"])
    assert "held-out data" in page


def test_figures_go_into_the_model_card(pipeline, result, tmp_path, evaluated_model):
    folder = pipeline.save_pretrained(tmp_path / "one")
    (folder / "metrics.json").write_text(json.dumps(result))
    card = (scm_media.load(folder, "cpu").save_pretrained(tmp_path / "two") / "README.md").read_text()
    assert "| consistency | 2 | 2 |" in card
    again = evaluate(scm_media.load(tmp_path / "two", "cpu"), num_samples=120, rows=(1,))
    assert again["rows"][0]["frechet"] == pytest.approx(result["rows"][1]["frechet"], rel=1e-4)

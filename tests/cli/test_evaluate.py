"""``evaluate``: which figures are kept as the model's, and a card that follows them."""

from __future__ import annotations

import json

import pytest
import yaml

import scm_media.evaluation
from scm_media.cli import evaluate_modes, main
from scm_media.evaluation import search_times
from scm_media.evaluation.kept_figures import read_measurements
from tests.evaluation.test_features import DATA
from tests.pipeline.tiny import DESCRIPTION, write_tiny_model

NUM_REFERENCE = {"data": 10_001}
ROW = {"precision": 0.5, "recall": 0.5, "accuracy": 0.9, "seconds_per_sample": 0.01}


@pytest.fixture
def own(tmp_path):
    """A model folder with figures of another day."""
    folder = write_tiny_model(tmp_path / "model")
    (folder / "metrics.json").write_text("{}")
    (folder / "README.md").write_text("Not evaluated.")
    return folder


@pytest.fixture
def measured(monkeypatch):
    """Replaces the evaluation by made-up figures and keeps what it was asked."""
    asked = []

    def evaluate(pipeline, request, **arguments):
        asked.append((request.num_samples, tuple(request.rows)))
        return {
            "model": pipeline.name,
            "student": "0123",
            "features": {"name": "the model's own feature extractor", "dimension": 8},
            "num_samples": request.num_samples,
            "rows": [
                {"sampler": "consistency", "steps": 2, "evaluations": 2, "frechet": 12.5, **ROW},
                {"sampler": "heun", "steps": 32, "evaluations": 63, "frechet": 11.5, **ROW},
            ],
            "frechet_held_out": 3.0,
            "num_reference": NUM_REFERENCE["data"],
            **({"curve": True} if request.curve else {}),
        }

    monkeypatch.setattr(scm_media.evaluation, "evaluate", evaluate)
    return asked


def test_the_figures_of_all_rows_are_kept_and_the_card_follows(own, measured, capsys):
    assert main(["evaluate", str(own), "--json"]) == 0
    assert measured == [(10_000, ("teacher", "1", "2", "4"))]
    printed = json.loads(capsys.readouterr().out)
    assert json.loads((own / "metrics.json").read_text()) == printed
    assert "| consistency | 2 | 2 | 12.5 |" in (own / "README.md").read_text()
    assert (own / "report.html").is_file()


@pytest.mark.parametrize(
    "words",
    [
        ["--rows", "1", "2"],
        ["-n", "1999"],
        ["-n", "4000", "--rows", "teacher", "1", "2"],
        ["-n", "4000", "--guidance", "1.5"],
    ],
)
def test_some_rows_or_few_samples_are_printed_and_not_kept(own, measured, capsys, words):
    assert main(["evaluate", str(own), *words]) == 0
    said = capsys.readouterr()
    assert "| consistency | 2 | 2 | 12.5 |" in said.out
    line = f"not kept: {own / 'metrics.json'} is for the rows teacher, 1, 2, 4 of at least 2000 samples"
    assert line in said.err
    assert (own / "metrics.json").read_text() == "{}"
    assert (own / "README.md").read_text() == "Not evaluated."


def test_out_keeps_whatever_was_measured_and_leaves_the_models_own(own, measured, tmp_path):
    assert main(["evaluate", str(own), "-n", "50", "--rows", "2", "--out", str(tmp_path / "out")]) == 0
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["num_samples"] == 50
    assert (own / "metrics.json").read_text() == "{}"
    assert (own / "README.md").read_text() == "Not evaluated."


def test_a_model_without_its_teacher_keeps_the_figures_it_came_with(own, measured, capsys):
    (own / "teacher.safetensors").unlink()
    assert main(["evaluate", str(own)]) == 0
    assert "not kept" in capsys.readouterr().err
    assert (own / "metrics.json").read_text() == "{}"


def test_a_run_folder_gets_figures_and_no_card(tmp_path, measured):
    run = write_tiny_model(tmp_path / "run", run_folder=True)
    assert main(["evaluate", str(run), "-n", "2000"]) == 0
    assert json.loads((run / "metrics.json").read_text())["num_samples"] == 2000
    assert not (run / "README.md").exists()


@pytest.fixture
def few(own, measured, monkeypatch):
    """A model of 150 training examples whose data are at hand; 20 samples are compared with them."""
    monkeypatch.setitem(NUM_REFERENCE, "data", 150)
    monkeypatch.setattr(evaluate_modes, "NUM_COMPARED", 20)
    (own / "recipe.yaml").write_text(yaml.safe_dump({"modality": DESCRIPTION.modality, "data": DATA}))
    return own


def test_a_model_of_few_examples_is_measured_for_memorization_too(few, capsys):
    assert main(["evaluate", str(few)]) == 0
    assert "Memorization\n\n20 samples" in capsys.readouterr().out
    kept = json.loads((few / "memorization.json").read_text())
    assert (kept["num_samples"], kept["num_train"]) == (20, 150)
    assert (few / "memorization.png").is_file()
    assert "## Memorization" in (few / "README.md").read_text()
    assert "probability of being nearer than a held-out sample" in (few / "report.html").read_text()
    assert main(["evaluate", str(few), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed.pop("memorization") == kept
    assert json.loads((few / "metrics.json").read_text()) == printed


@pytest.mark.parametrize("words", [["-n", "1999"], ["--features", "efficientnet-lite0"]])
def test_memorization_is_left_out_where_figures_are_not_the_models_own(few, words):
    (few / "metrics.json").unlink()
    assert main(["evaluate", str(few), *words]) == 0
    assert not (few / "memorization.json").exists()


def test_memorization_is_left_out_with_a_remark_where_the_data_are_not_there(few, capsys):
    (few / "recipe.yaml").unlink()
    assert main(["evaluate", str(few)]) == 0
    assert "memorization was not measured: " in capsys.readouterr().err
    assert json.loads((few / "metrics.json").read_text())["num_samples"] == 10_000
    assert not (few / "memorization.json").exists()


def test_memorization_of_many_examples_is_measured_only_where_asked_for(few, monkeypatch):
    monkeypatch.setitem(NUM_REFERENCE, "data", 10_001)
    assert main(["evaluate", str(few)]) == 0
    assert not (few / "memorization.json").exists()


def test_no_samples_are_refused(model, capsys):
    assert main(["evaluate", model, "-n", "0"]) == 1
    assert "-n must be at least 2, got 0" in capsys.readouterr().err


def test_a_search_prints_its_curve_and_keeps_the_best(own, monkeypatch, capsys):
    found = {
        "model": "test/tiny",
        "num_samples": 30,
        "seed": 1,
        "curve": [
            {
                "steps": 2,
                "own": True,
                "first_time": 1.5,
                "second_time": 0.9,
                "times": [1.5, 0.9],
                "frechet": 7.0,
                "labels": {},
            }
        ],
        "times": {"2": [1.5, 0.9]},
    }
    asked = []

    def search(pipeline, **arguments):
        asked.append(arguments)
        return found

    monkeypatch.setattr(scm_media.evaluation, "search_times", search)
    assert main(["evaluate", str(own), "--search-times", "-n", "30", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == found
    assert (asked[0]["num_samples"], asked[0]["seed"]) == (30, 1)
    assert set(asked[0]) <= set(search_times.__annotations__)
    assert json.loads((own / "model.json").read_text())["sampler"]["times"] == {"2": [1.5, 0.9]}
    assert (own / "metrics.json").read_text() == "{}"
    with pytest.raises(SystemExit) as exit:
        main(["evaluate", str(own), "--search-times", "--rows", "2"])
    assert exit.value.code == 2


def test_a_curve_is_a_page_with_samples_and_a_picture(own, measured, capsys):
    assert main(["evaluate", str(own), "--curve", "--rows", "teacher", "1", "2", "4", "-n", "2000"]) == 0
    page = (own / "report.html").read_text()
    assert "Distance over compute" in page
    assert page.count('<img src="data:image/png;base64,') == 4 * 8, "1, 2, 4 steps and the teacher, from one noise"
    assert f"scm-media evaluate {own.name} --curve" in page
    assert str(own.parent) not in page
    assert (own / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_a_curve_and_ordinary_figures_are_both_kept_whichever_came_first(own, measured, tmp_path):
    curve = ["evaluate", str(own), "--curve", "--rows", "teacher", "1", "2", "4", "-n"]

    def numbers():
        files = {file.name: json.loads(file.read_text()) for file in own.glob("metrics*.json")}
        return {name: figures["num_samples"] for name, figures in files.items()}

    def compared(*sources):
        return [each.metrics["num_samples"] for each in read_measurements([str(own), *map(str, sources)])]

    assert main(["evaluate", str(own)]) == main([*curve, "2000"]) == 0
    assert numbers() == {"metrics.json": 10_000, "metrics-curve.json": 2_000}
    assert "Distance over compute" in (own / "report-curve.html").read_text()
    assert "Distance over compute" not in (own / "report.html").read_text()
    assert (own / "curve.png").is_file() and not (own / "curve-curve.png").exists()
    card = (own / "README.md").read_text()
    assert card.count("## Quality against compute") == 1 and "## In other features" not in card
    (tmp_path / "ordinary.json").write_text((own / "metrics.json").read_text())
    assert compared() == [2_000] and compared(tmp_path / "ordinary.json") == [10_000, 10_000]

    (own / "metrics.json").unlink()
    assert main([*curve, "3000"]) == 0
    assert numbers() == {"metrics.json": 3_000}, "one curve takes the place of the other"
    assert main(["evaluate", str(own), "-n", "2500"]) == 0
    assert numbers() == {"metrics.json": 2_500, "metrics-curve.json": 3_000}
    assert "Distance over compute" in (own / "report-curve.html").read_text()


@pytest.mark.parametrize("key", ["student", "model"])
def test_a_curve_of_other_weights_or_of_another_model_goes(own, measured, key):
    curve = ["evaluate", str(own), "--curve", "--rows", "teacher", "1", "2", "4", "-n", "2000"]
    assert main(["evaluate", str(own)]) == main(curve) == main(["evaluate", str(own)]) == 0
    kept = json.loads((own / "metrics-curve.json").read_text())
    (own / "metrics-curve.json").write_text(json.dumps(kept | {key: "another"}))
    assert main(["evaluate", str(own)]) == 0
    assert not (own / "metrics-curve.json").exists() and not (own / "report-curve.html").exists()


def test_without_the_flag_the_page_is_as_it_was(own, measured):
    assert main(["evaluate", str(own)]) == 0
    assert "Distance over compute" not in (own / "report.html").read_text()
    assert not (own / "curve.png").exists()

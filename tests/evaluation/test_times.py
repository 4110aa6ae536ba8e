"""The search of times: a curve over the second time, its best kept where the pipeline finds it."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

import scm_media
from scm_media.evaluation import evaluate, keep_times, search_times, times_report

GRID = (0.6, 1.0)


@pytest.fixture(scope="module")
def pipeline(evaluated_model):
    return scm_media.load(evaluated_model, "cpu")


@pytest.fixture(scope="module")
def found(pipeline):
    return search_times(pipeline, num_samples=60, grid=GRID, seed=0)


def test_the_curve_holds_each_second_time_and_the_models_own(found, pipeline):
    assert [(entry["steps"], entry["second_time"]) for entry in found["curve"]] == [
        (steps, second) for steps in (2, 4) for second in (0.6, 1.0, 1.1)
    ]
    t_max = pipeline.flow.time_from_sigma(80.0)
    assert found["curve"][0]["times"] == pytest.approx([t_max, 0.6])
    assert found["curve"][3]["times"] == pytest.approx([t_max, 0.6, 0.4, 0.2])


def test_distances_are_those_of_an_evaluation_and_the_best_is_the_least(found, pipeline, monkeypatch):
    rows = evaluate(pipeline, num_samples=60, rows=(2, 4), timing_batch_size=2, timing_repeats=1)["rows"]
    curve = {(entry["steps"], entry["second_time"]): entry for entry in found["curve"]}
    for row in rows:
        assert curve[row["steps"], 1.1]["frechet"] == pytest.approx(row["frechet"], rel=1e-4)
        distances = {tuple(e["times"]): e["frechet"] for (steps, _), e in curve.items() if steps == row["steps"]}
        assert tuple(found["times"][str(row["steps"])]) == min(distances, key=distances.get)
        assert len(set(distances.values())) == 3


def test_what_is_found_is_kept_and_used(found, pipeline, tmp_path):
    folder = shutil.copytree(pipeline.folder.path, tmp_path / "model")
    chosen = {**found, "times": {"2": found["curve"][0]["times"]}}
    keep_times(scm_media.load(folder, "cpu").folder, chosen)
    again = scm_media.load(folder, "cpu")
    assert torch.equal(again(2, steps=2).samples, pipeline(2, times=chosen["times"]["2"]).samples)
    keep_times(again.folder, {**found, "times": {"4": found["times"]["4"]}})
    description = json.loads((folder / "model.json").read_text())
    assert description["sampler"]["times"] == {"2": chosen["times"]["2"], "4": found["times"]["4"]}
    assert {**description, "sampler": None} == {**pipeline.folder.description, "sampler": None}


def test_the_report_marks_one_best_a_number_of_steps(found):
    text = times_report(found)
    assert text.count("best") == 2
    assert len(text.splitlines()) == 7


def test_too_few_samples_are_refused(pipeline):
    with pytest.raises(ValueError, match="num_samples must be at least 2, got 1"):
        search_times(pipeline, num_samples=1)

"""The search of times: curves over the first and the second time, their best kept where the pipeline finds it."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

import scm_media
from scm_media.evaluation import evaluate, keep_times, search_times, times_report

GRID = (0.6, 1.0)
SIGMAS = (5.0, 20.0, 90.0)


@pytest.fixture(scope="module")
def pipeline(evaluated_model):
    return scm_media.load(evaluated_model, "cpu")


@pytest.fixture(scope="module")
def found(pipeline):
    return search_times(pipeline, num_samples=60, grid=GRID, first_sigmas=SIGMAS, seed=0)


def test_the_curve_holds_noise_levels_up_to_the_models_own_then_second_times_and_its_own(found, pipeline):
    first = [pipeline.flow.time_from_sigma(sigma) for sigma in (5.0, 20.0, 80.0)]
    tries = [(entry["steps"], entry["first_time"], entry["second_time"]) for entry in found["curve"]]
    assert tries[:3] == [(1, pytest.approx(time), None) for time in first]
    best = found["times"]["1"]
    assert tries[3:] == [(steps, best[0], second) for steps in (2, 4) for second in (0.6, 1.0, 1.1)]
    assert [entry["times"] for entry in found["curve"][:3]] == [[pytest.approx(time)] for time in first]
    assert found["curve"][3]["times"] == pytest.approx([*best, 0.6])
    assert found["curve"][6]["times"] == pytest.approx([*best, 0.6, 0.4, 0.2])


def test_distances_are_those_of_an_evaluation_and_the_best_is_the_least(found, pipeline, tmp_path):
    folder = shutil.copytree(pipeline.folder.path, tmp_path / "model")
    keep_times(scm_media.load(folder, "cpu").folder, found)
    again = scm_media.load(folder, "cpu")
    rows = evaluate(again, num_samples=60, rows=(1, 2, 4), timing_batch_size=2, timing_repeats=1)["rows"]
    for row in rows:
        tried = [entry for entry in found["curve"] if entry["steps"] == row["steps"]]
        (best,) = (entry for entry in tried if entry["times"] == found["times"][str(row["steps"])])
        assert (best["frechet"], best["agreement"]) == pytest.approx((row["frechet"], row["agreement"]), rel=1e-4)
        keeping = max(entry["agreement"] for entry in tried) - 0.005
        assert all(entry["frechet"] >= best["frechet"] for entry in tried if entry["agreement"] >= keeping)
        assert len({entry["frechet"] for entry in tried}) == 3


def test_a_second_time_at_or_above_the_first_is_not_tried(pipeline):
    found = search_times(pipeline, 20, grid=(0.6, 1.3, 1.57), first_sigmas=(0.9,), steps=(2,))
    first = found["times"]["1"][0]
    tried = [entry["second_time"] for entry in found["curve"] if entry["steps"] == 2]
    assert tried == [second for second in (0.6, 1.1, 1.3, 1.57) if second < first]


def test_what_is_found_is_kept_and_used(found, pipeline, tmp_path):
    folder = shutil.copytree(pipeline.folder.path, tmp_path / "model")
    chosen = {**found, "times": {"2": found["curve"][3]["times"]}}
    keep_times(scm_media.load(folder, "cpu").folder, chosen)
    again = scm_media.load(folder, "cpu")
    assert torch.equal(again(2, steps=2).samples, pipeline(2, times=chosen["times"]["2"]).samples)
    keep_times(again.folder, {**found, "times": {"4": found["times"]["4"]}})
    description = json.loads((folder / "model.json").read_text())
    assert description["sampler"]["times"] == {"2": chosen["times"]["2"], "4": found["times"]["4"]}
    keep_times(again.folder, {**found, "times": {"1": found["times"]["1"]}})
    kept = json.loads((folder / "model.json").read_text())["sampler"]["times"]
    assert list(kept) == ["1", "2", "4"], "in order, whatever was searched last"
    assert {**description, "sampler": None} == {**pipeline.folder.description, "sampler": None}


def test_the_report_marks_one_best_a_number_of_steps(found):
    text = times_report(found)
    assert text.count("best") == 3
    assert len(text.splitlines()) == 10
    assert text.splitlines()[1].startswith("1 step   1.4711         ")


def test_the_best_is_nearest_of_those_that_keep_to_their_labels():
    def marked(*tries):
        curve = [
            {
                "steps": 1,
                "first_time": time,
                "second_time": None,
                "times": [time],
                "frechet": frechet,
                "agreement": told,
            }
            for time, frechet, told in tries
        ]
        lines = times_report({"model": "m", "num_samples": 9, "curve": curve}).splitlines()[1:]
        return [time for (time, *_), line in zip(tries, lines, strict=True) if "best" in line]

    assert marked((1.52, 5.0, 0.78), (1.55, 6.0, 0.797), (1.56, 7.0, 0.8)) == [1.55]
    assert marked((1.52, 5.0, 0.795), (1.55, 6.0, 0.797), (1.56, 7.0, 0.8)) == [1.52]
    assert marked((1.52, 5.0, None), (1.55, 6.0, None)) == [1.52]


def test_too_few_samples_are_refused(pipeline):
    with pytest.raises(ValueError, match="num_samples must be at least 2, got 1"):
        search_times(pipeline, num_samples=1)

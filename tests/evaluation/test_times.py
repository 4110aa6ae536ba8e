"""The search of times: curves over the first and the second time, their best kept where the pipeline finds it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
import torch

import scm_media
from scm_media.evaluation import keep_times, search_times, times_report
from scm_media.samplers import consistency_times
from tests.evaluation.quick import evaluate

GRID = (0.6, 1.0)
SIGMAS = (5.0, 20.0, 90.0)


@pytest.fixture(scope="module")
def pipeline(evaluated_model):
    return scm_media.load(evaluated_model, "cpu")


@pytest.fixture(scope="module")
def found(pipeline):
    return search_times(pipeline, num_samples=60, grid=GRID, first_sigmas=SIGMAS, seed=0)


def test_the_curve_holds_noise_levels_up_to_the_models_own_then_its_own_times_and_second_times(found, pipeline):
    first = [pipeline.flow.time_from_sigma(sigma) for sigma in (5.0, 20.0, 80.0)]
    tries = [(entry["steps"], entry["first_time"], entry["second_time"]) for entry in found["curve"]]
    assert tries[:3] == [(1, pytest.approx(time), None) for time in first]
    best = found["times"]["1"][0]
    own = [] if best == first[2] else [(first[2], 1.1)]
    later = [*own, *((best, second) for second in (0.6, 1.0, 1.1))]
    assert set(tries[3:]) == {(steps, *times) for steps in (2, 4) for times in later}
    assert len(tries) == 3 + 2 * len(later)
    assert [entry["times"] for entry in found["curve"][:3]] == [[pytest.approx(time)] for time in first]
    assert {tuple(entry["times"]) for entry in found["curve"] if entry["own"]} == {
        tuple(consistency_times(steps, pipeline.flow)) for steps in (1, 2, 4)
    }
    assert [best, 0.6] in [entry["times"] for entry in found["curve"]]
    four = next(entry for entry in found["curve"] if (entry["steps"], entry["second_time"]) == (4, 0.6))
    assert four["times"] == pytest.approx([best, 0.6, 0.4, 0.2])


def test_distances_are_those_of_an_evaluation_and_the_best_is_the_least(found, pipeline, tmp_path):
    folder = shutil.copytree(pipeline.folder.path, tmp_path / "model")
    keep_times(scm_media.load(folder, "cpu").folder, found)
    again = scm_media.load(folder, "cpu")
    rows = evaluate(again, num_samples=60, rows=(1, 2, 4))["rows"]
    for row in rows:
        tried = [entry for entry in found["curve"] if entry["steps"] == row["steps"]]
        (best,) = (entry for entry in tried if entry["times"] == found["times"][str(row["steps"])])
        accuracy = sum(best["labels"].values()) / len(best["labels"])
        assert (best["frechet"], accuracy) == pytest.approx((row["frechet"], row["accuracy"]), rel=1e-4)
        (own,) = (entry["labels"] for entry in tried if entry["own"])
        keeping = [entry for entry in tried if all(entry["labels"][name] >= own[name] - 0.01 for name in own)]
        assert best["frechet"] == min(entry["frechet"] for entry in keeping)
        assert len({entry["frechet"] for entry in tried}) == len(tried)


def test_times_stay_below_the_models_own_first_and_second_ones_below_it(pipeline, monkeypatch):
    monkeypatch.setattr(pipeline, "settings", replace(pipeline.settings, sigma_max=1.0))
    first = pipeline.flow.time_from_sigma(1.0)
    found = search_times(pipeline, 20, grid=(0.6, first, 1.3), steps=(2,))
    tried = [(entry["steps"], entry["first_time"], entry["second_time"]) for entry in found["curve"]]
    assert tried == [(1, first, None), (2, first, 1.1), (2, first, 0.6)]


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
    assert {**description, "sampler": None} == {**pipeline.folder.description.to_json(), "sampler": None}


def test_the_report_marks_one_best_a_number_of_steps(found):
    text = times_report(found)
    assert text.count("best\n") + text.endswith("best") == 3
    assert len(text.splitlines()) == 2 + len(found["curve"])
    assert "and the accuracy of class, of which the best may lose 0.01" in text
    assert text.splitlines()[2].startswith("1 step   1.4711         ")


def test_the_best_is_nearest_of_those_that_keep_to_their_labels():
    def marked(*tries):
        curve = [
            {
                "steps": 1,
                "own": time == 1.56,
                "first_time": time,
                "second_time": None,
                "times": [time],
                "frechet": frechet,
                "labels": labels,
            }
            for time, frechet, labels in tries
        ]
        lines = times_report({"model": "m", "num_samples": 9, "curve": curve}).splitlines()[-len(tries) :]
        return [time for (time, *_), line in zip(tries, lines, strict=True) if "best" in line]

    told = {"family": 0.8, "pitch": 0.9}
    assert marked((1.52, 5.0, {"family": 0.9, "pitch": 0.87}), (1.55, 6.0, told), (1.56, 7.0, told)) == [1.55]
    assert marked((1.52, 5.0, {"family": 0.795, "pitch": 0.895}), (1.55, 6.0, told), (1.56, 7.0, told)) == [1.52]
    better = {"family": 0.95, "pitch": 0.95}
    assert marked((1.52, 9.0, better), (1.55, 8.0, better), (1.56, 7.0, told)) == [1.56], "others set no bar"
    assert marked((1.52, 5.0, {}), (1.56, 6.0, {})) == [1.52]


def test_too_few_samples_are_refused(pipeline):
    with pytest.raises(ValueError, match="num_samples must be at least 2, got 1"):
        search_times(pipeline, num_samples=1)


def test_one_step_is_searched_in_any_case(pipeline):
    with pytest.raises(ValueError, match="steps must be at least 2, one step being searched in any case"):
        search_times(pipeline, steps=(1, 2))

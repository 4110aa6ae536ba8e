"""Students of every method get the same number of operations, share what they begin with, and stand in one table."""

from __future__ import annotations

import importlib
import json
import threading
from pathlib import Path

import pytest

from scm_media.recipe import compose
from scm_media.training import run
from tests.benchmarks.test_equal_compute import OVERRIDES

FOLDER = Path(__file__).parents[2] / "benchmarks"
SEARCHED = {"times": {"2": [1.55, 0.7], "4": [1.55, 1.0, 0.7, 0.4]}}


@pytest.fixture
def methods(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("methods")


@pytest.fixture
def study(tmp_path, methods, monkeypatch):
    """A study of a small image/fashion whose evaluation counts what it is asked and returns the same figures."""
    for stage in ("autoencoder", "teacher"):
        run(compose("image/fashion", [*OVERRIDES, f"run_dir={tmp_path / 'base'}", f"stage={stage}"]))
    rows = [{"steps": steps, "frechet": 1.5 / steps, "seconds": 1.0} for steps in methods.STEPS]
    monkeypatch.setattr(methods, "evaluate", lambda *_, **__: {"rows": rows})
    monkeypatch.setattr(methods, "search_times", lambda *_, **__: SEARCHED)
    return methods.Study("image/fashion", str(tmp_path / "base"), tmp_path / "out", OVERRIDES, "float32")


@pytest.mark.slow
def test_each_method_gets_the_operations_that_are_left_to_it(study, monkeypatch, methods):
    budget = 4e9
    for name, seed in (("sCT", 0), ("MeanFlow", 3), ("regression + matching", 0)):
        study.add(name, seed, budget, 32)
    found = study.results
    operations, shared = found["operations"], found["shared"]
    assert found["students"]["MeanFlow, seed 3"]["steps"] == int(budget / operations["MeanFlow"]) > 2
    left = budget - shared["trajectories"] - shared["warm_start"]
    assert found["students"]["regression + matching, seed 0"]["steps"] == int(
        left / operations["regression + matching"]
    )
    assert 0.6 < shared["warm_start"] / (budget - shared["trajectories"]) <= methods.WARM_SHARE
    assert operations["warm start"] < operations["sCT"] < 6 * operations["warm start"]
    folder = study.out / "sCT-seed-0"
    recipe = (folder / "recipe.yaml").read_text()
    assert f"tangent_warmup: {found['students']['sCT, seed 0']['steps'] // 4}" in recipe
    assert "trajectories: null" in recipe and "objective: sct" in recipe
    assert json.loads((folder / "model.json").read_text())["sampler"]["times"] == SEARCHED["times"]
    monkeypatch.setattr(study, "train_stage", lambda overrides: pytest.fail("trained again"))
    study.add("sCT", 0, budget, 32)
    with pytest.raises(SystemExit, match=r"1e\+03 operations are too few for a step"):
        study.add("sCT", 1, 1e3, 32)


def test_a_student_that_another_process_has_begun_is_left_to_it(methods, tmp_path, monkeypatch):
    study, begun = methods.Study("image/fashion", "none", tmp_path, (), "float32"), []
    monkeypatch.setattr(study, "_add", lambda name, seed, *_: begun.append((name, seed)))
    with study.lock("sCT-seed-0"):
        for name, seed in (("sCT", 0), ("sCT", 1)):
            study.add(name, seed, 1e9, 10)
    assert begun == [("sCT", 1)]
    study.add("sCT", 0, 1e9, 10)
    assert begun == [("sCT", 1), ("sCT", 0)]


def test_figures_of_several_processes_are_all_kept(methods, tmp_path):
    study = methods.Study("image/fashion", "none", tmp_path, (), "float32")
    workers = [threading.Thread(target=study.keep, args=("shared", f"stage {number}", number)) for number in range(20)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert study.results["shared"] == {f"stage {number}": number for number in range(20)}


def test_the_table_has_means_and_their_spread_best_in_two_steps_first(methods):
    def student(method, seed, two):
        rows = {"1": {"frechet": 4.0 + seed}, "2": {"frechet": two}, "4": {"frechet": 2.0}}
        return {"method": method, "seed": seed, "steps": 1400, "rows": rows}

    students = {"a0": student("sCD", 0, 3.0), "a1": student("sCD", 1, 3.5), "b0": student("MeanFlow", 0, 2.5)}
    lines = methods.as_markdown(students).splitlines()
    assert lines[2] == "| MeanFlow | 1 | 1,400 | 4 | 2.5 | 2 |"
    assert lines[3] == "| sCD | 2 | 1,400 | 4.5 ± 0.71 | 3.25 ± 0.35 | 2 ± 0 |"


@pytest.mark.slow
def test_every_method_is_a_recipe_that_composes(methods):
    for name, method in methods.METHODS.items():
        config = compose("image/fashion", list(method.overrides))
        assert (config["student"]["objective"] == "sct") == any("objective=sct" in each for each in method.overrides), (
            name
        )


def test_every_tangent_whose_weight_rises_does_so_in_a_part_of_the_training(methods):
    for name, method in methods.METHODS.items():
        loss = compose("image/fashion", list(method.overrides))["student"]["loss"]
        assert (method.rise is not None) == (loss.get("tangent_warmup", 0) > 0), name

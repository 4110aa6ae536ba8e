"""The time left of a run, from one stage's speed; it is told once, after the first steps of a stage that begins."""

from __future__ import annotations

import re

import pytest

from scm_media import recipe, training
from scm_media.cli import main
from scm_media.training.forecast import Forecast, duration
from scm_media.training.reporting import Reporter
from tests.training.small import SMALL, train

ALL = ("teacher", "guide", "trajectories", "warm_start", "student")


def forecast(tmp_path, *overrides: str) -> Forecast:
    config = recipe.compose("image/fashion", ["guide.max_steps=1500", *overrides])
    return Forecast(config, ("feature_extractor", "autoencoder", *ALL), tmp_path)


def test_durations():
    assert [duration(seconds) for seconds in (5, 65, 3599, 3600, 8040)] == [
        "0:05 min",
        "1:05 min",
        "59:59 min",
        "1:00 h",
        "2:14 h",
    ]


def test_later_stages_are_told_from_the_speed_of_the_first(tmp_path):
    found = forecast(tmp_path)
    guide = 3 * 96**2 / (5 * 160**2)
    expected = {
        "teacher": 23000 * 64,
        "guide": 1500 * 64 * guide,
        "trajectories": 16384 * 16 * (1 + guide) / 3,
        "warm_start": 4000 * 64,
        "student": 400 * 64 * 3.6,
    }
    assert found.work == pytest.approx(expected)
    whole = (sum(expected.values()) - 3200) / 100
    said = found.line("teacher", 100.0, 23000 * 64 - 3200)
    assert said.startswith(f"teacher: 100 samples/s, {duration(14688)} left for this stage")
    assert f"about {duration(whole)} for this and guide, trajectories, warm_start, student" in said
    # A student's sample costs 3.6 of the teacher's: at 50 samples/s nothing else is left.
    assert found.line("student", 50.0, 5000) == "student: 50 samples/s, 1:40 min left for this stage"
    assert "warm_start, student" in found.line("guide", 400.0, 1000)
    assert found.line("feature_extractor", 10.0, 600) == "feature_extractor: 10 samples/s, 1:00 min left for this stage"


def test_the_speed_leaves_out_the_first_step_and_is_told_once(tmp_path, capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("scm_media.training.reporting.time.monotonic", lambda: now[0])
    reporter = Reporter(tmp_path / "a", "teacher", 100, 0, None, forecast(tmp_path))
    for step in range(1, 31):
        now[0] += 60.0 if step == 1 else 2.0  # the first step compiles
        reporter.advance(step)
        if step % 10 == 0 or step == 1:
            reporter.report(step, {"loss": 1.0}, 64)
    reporter.close()
    said = [line for line in capsys.readouterr().err.splitlines() if "left for this stage" in line]
    assert len(said) == 1
    assert said[0].startswith(f"teacher: 32 samples/s, {duration(90 * 2)} left for this stage, about ")


def test_a_stage_that_goes_on_says_nothing_again(tmp_path, capsys):
    reporter = Reporter(tmp_path / "a", "teacher", 100, 50, None, forecast(tmp_path))
    for step in (51, 52, 53):
        reporter.advance(step)
        reporter.report(step, {"loss": 1.0}, 64)
    reporter.close()
    assert "left for this stage" not in capsys.readouterr().err


def test_a_run_says_it_for_each_stage_and_not_when_it_goes_on(tmp_path, capsys):
    train(tmp_path / "run")
    said = re.findall(r"(\w+): \d+ samples/s, .* left for this stage", capsys.readouterr().err)
    assert said == ["teacher", "student"]
    train(tmp_path / "run", "student.max_steps=8")
    assert "left for this stage" not in capsys.readouterr().err


def test_train_says_memory_and_samples_before_a_new_run_alone(tmp_path, capsys):
    words = ["train", "image/tiny", *SMALL, f"run_dir={tmp_path}/run"]
    assert main(words) == 0
    said = capsys.readouterr().err
    found = re.search(r"image/tiny: networks of (0\.\d+) M parameters, about 0\.4\d MiB in training", said)
    assert found is not None
    assert "samples: teacher 48, student 48" in said
    assert said.index("networks of") < said.index("teacher 1/6")
    assert main(words) == 0
    assert "networks of" not in capsys.readouterr().err


def test_a_run_without_an_estimate_is_silent(tmp_path, capsys):
    training.run(recipe.compose("image/tiny", [*SMALL, f"run_dir={tmp_path}/run"]))
    assert "networks of" not in capsys.readouterr().err

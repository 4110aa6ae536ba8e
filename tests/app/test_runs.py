"""Runs are found below a root alone, read while they are written, and have their state in words."""

from __future__ import annotations

import math
import os
from types import SimpleNamespace

import gradio as gr
import pytest

from scm_media import weights
from scm_media.app import runs_tab
from scm_media.app.context import App
from scm_media.app.run_curves import draw_panels, group_figures
from scm_media.app.run_progress import find_runs, open_run, read_figures, read_progress, thin
from scm_media.app.settings import ServerSettings
from scm_media.training.run_folder import claim, find_holder
from tests.app.run_folders import finish, write_figures, write_run, write_sheet
from tests.training.small import train


def test_runs_are_found_below_the_root_and_nowhere_else(tmp_path):
    root = tmp_path / "runs"
    write_run(root / "image" / "small" / "main", {"teacher": 10})
    newer = write_run(root / "sound", {"teacher": 10})
    secret = write_run(tmp_path / "secret", {"teacher": 10})
    (root / "link").symlink_to(secret)
    (newer / "deeper").mkdir()
    write_run(newer / "deeper", {"teacher": 10})
    os.utime(root / "image" / "small" / "main" / "recipe.yaml", (1, 1))
    assert find_runs(root) == ["sound", "image/small/main"]
    assert open_run(root, "image/small/main") == root / "image" / "small" / "main"
    for name in ("../secret", "link", str(secret), "", ".", "sound/deeper", "sound/../../secret"):
        with pytest.raises(ValueError, match="there is no run"):
            open_run(root, name)
    assert find_runs(tmp_path / "nothing") == []


def test_links_within_a_run_are_not_followed(tmp_path):
    secret = write_run(tmp_path / "secret", {"teacher": 20, "student": 20, "guide": 20})
    write_figures(secret / "student", [{"step": 5, "loss": 1.0}])
    sheet = write_sheet(secret / "student", 5)
    run = write_run(tmp_path / "runs" / "run", {"teacher": 20, "student": 20})
    (run / "student" / "metrics.jsonl").symlink_to(secret / "student" / "metrics.jsonl")
    (run / "student" / "samples").symlink_to(sheet.parent)
    (run / "teacher" / "samples").mkdir()
    (run / "teacher" / "samples" / "step-5.png").symlink_to(sheet)
    assert [(stage.figures, stage.sheet) for stage in read_progress(run).stages] == [({}, None), ({}, None)]
    (run / "teacher").rename(run / "own")
    (run / "teacher").symlink_to(secret / "student")
    assert [stage.name for stage in read_progress(run).stages] == ["student"]


def test_a_half_written_line_is_left_out_and_counts_later(tmp_path):
    file = tmp_path / "metrics.jsonl"
    write_figures(tmp_path, [{"step": 1, "loss": 2.0}, {"step": 2, "loss": None}], '{"step": 3, "lo')
    assert read_figures(file)["loss"][0] == [1, 2]
    assert math.isnan(read_figures(file)["loss"][1][1])
    with file.open("a") as lines:
        lines.write('ss": 0.5}\nnull\n[1]\n{"loss": 1}\n\xff\n')
    assert read_figures(file)["loss"][0] == [1, 2, 3]
    assert read_figures(file)["loss"][1][2] == 0.5
    with file.open("a") as lines:
        lines.write('{"step": Infinity, "loss": 1}\n{"step": 4, "loss": 1' + "0" * 400 + "}\n")
    assert read_figures(file)["loss"][0] == [1, 2, 3]
    assert read_figures(tmp_path / "none.jsonl") == {}


def test_stages_say_how_far_they_are_and_what_is_left(tmp_path):
    run = write_run(tmp_path / "run", {"teacher": 20, "student": 100})
    assert read_progress(run).state == "not begun"
    write_figures(run / "teacher", [{"step": 20, "loss": 0.5, "samples_per_second": 4.0}])
    finish(run / "teacher", 20)
    speeds = (1.0, 16.0, 16.0, 16.0, 400.0)
    lines = [{"step": 10 * n, "loss": 1 / n, "samples_per_second": s} for n, s in enumerate(speeds, 1)]
    write_figures(run / "student", lines)
    (run / "student" / "checkpoints" / "step-40").mkdir(parents=True)
    write_sheet(run / "student", 9)
    newest = write_sheet(run / "student", 50)
    written = (run / "student" / "metrics.jsonl").stat().st_mtime

    stopped = read_progress(run)
    teacher, student = stopped.stages
    assert (stopped.state, stopped.holder, stopped.forecast) == ("stopped", None, None)
    assert (teacher.name, teacher.state, teacher.done, teacher.total) == ("teacher", "done", 20, 20)
    assert (student.state, student.done, student.total, student.resumes) == ("stopped", 50, 100, 40)
    assert student.seconds_left == 60 * 8 / 16, "from the checkpoint on, at the median of the speeds"
    assert student.sheet == (newest, 50)
    assert teacher.sheet is None

    with claim(run):
        training = read_progress(run, now=written + 5)
    student = training.stages[1]
    assert (training.state, student.state) == ("training now", "training now")
    assert training.holder == f"process {os.getpid()} on {os.uname().nodename}"
    assert student.seconds_left == pytest.approx(25 - 5, abs=0.01)
    assert training.forecast == "student: 16 samples/s, 0:20 min left for this stage"
    assert training.stages[0].state == "done"

    finish(run / "student", 100)
    assert read_progress(run).state == "done"


def test_the_stage_that_is_trained_comes_with_a_forecast_of_the_others(tmp_path):
    run = write_run(tmp_path / "run", {"teacher": 20, "student": 100})
    write_figures(run / "teacher", [{"step": 10, "samples_per_second": 8.0}])
    now = (run / "teacher" / "metrics.jsonl").stat().st_mtime
    with claim(run):
        progress = read_progress(run, now=now)
    # 10 steps of 8 at 8 a second; a student's step costs two of the teacher's: 100 * 8 * 2 / 8 = 200 s
    assert (
        progress.forecast == "teacher: 8 samples/s, 0:10 min left for this stage, about 3:30 min for this and student"
    )
    assert [stage.state for stage in progress.stages] == ["training now", "not begun"]


def test_a_stage_that_ended_early_is_done(tmp_path):
    run = write_run(tmp_path / "run", {"teacher": 20}, teacher={"patience": 2})
    file = run / "teacher" / "weights.safetensors"
    weights.save(file, {}, {}, {"step": 5, "last_step": 12, "num_worse": 2})
    (stage,) = read_progress(run).stages
    assert (stage.state, stage.done, stage.total, stage.seconds_left) == ("done", 12, 20, None)
    file.write_bytes(b"cut short")
    assert read_progress(run).stages[0].state == "not begun"


def test_the_lock_of_a_run_that_ended_means_nothing(tmp_path):
    with claim(tmp_path):
        assert find_holder(tmp_path) == f"process {os.getpid()} on {os.uname().nodename}"
    assert find_holder(tmp_path) is None
    (tmp_path / ".lock").write_text(f"process 999999999 on {os.uname().nodename}\n")
    assert find_holder(tmp_path) is None
    assert find_holder(tmp_path / "none") is None
    with claim(tmp_path):
        pass  # having looked is not in the way


def test_what_training_writes_is_read(tmp_path):
    run = tmp_path / "runs" / "tiny"
    for stage in ("autoencoder", "teacher"):
        train(run, f"stage={stage}", "trainer.sample_early=[3]")
    assert find_runs(tmp_path / "runs") == ["tiny"]
    progress = read_progress(run)
    states = {stage.name: (stage.state, stage.done, stage.total) for stage in progress.stages}
    assert states == {"teacher": ("done", 6, 6), "student": ("not begun", 0, 6)}
    teacher = progress.stages[0]
    assert teacher.sheet == (run / "teacher" / "samples" / "step-6.png", 6)
    assert teacher.figures["loss"][0] == [1, 2, 3, 4, 5, 6]
    assert teacher.samples_per_second > 0
    assert progress.state == "stopped"


def test_a_damaged_recipe_is_said_in_words(tmp_path):
    run = write_run(tmp_path / "run", {"teacher": 20})
    for text, words in (("{", "cannot be read"), ("- 1", "is no recipe"), ("teacher: 3", "is no whole recipe")):
        (run / "recipe.yaml").write_text(text)
        with pytest.raises(ValueError, match=words):
            read_progress(run)


def test_the_page_shows_a_run_and_sends_only_what_has_changed(tmp_path):
    run = write_run(tmp_path / "runs" / "<b>run", {"teacher": 20})
    write_figures(run / "teacher", [{"step": 5, "loss": 1.0}])
    write_sheet(run / "teacher", 5)
    app = App(ServerSettings(models=("image/fashion",), device="cpu", out=tmp_path, runs=tmp_path / "runs"))
    request = SimpleNamespace(session_hash="me")
    try:
        with gr.Blocks(), gr.Tab("Runs"):
            tab = runs_tab.RunsTab(app, tmp_path / "runs")
        first = tab.on_look(None, "the latest", False, None, request)
        assert (first[0]["choices"], first[0]["value"]) == (["<b>run"], "<b>run")
        assert "5 of 20" in first[2]
        assert "loss over steps" in first[3]
        assert "teacher, samples after 5 steps" in first[4]
        again = tab.on_look("<b>run", "the latest", False, first[5], request)
        skipped = gr.skip()
        assert [again[place] == skipped for place in (0, 1, 3, 4)] == [True] * 4
        write_figures(run / "teacher", [{"step": 5, "loss": 1.0}, {"step": 6, "loss": 1.0}])
        later = tab.on_look("../runs", "student", False, again[5], request)
        assert "6 of 20" in later[2]
        assert "loss over steps" in later[3]
        (run / "recipe.yaml").write_text("{")
        told = tab.on_look("<b>run", "the latest", False, None, request)[2]
        assert "cannot be read" in told
        assert str(tmp_path) not in told
    finally:
        app.close()
    with pytest.raises(ValueError, match=r"--runs .* is no folder"):
        ServerSettings(runs=tmp_path / "none")


def test_figures_are_grouped_to_panels_and_drawn():
    names = (
        "rate",
        "to_teacher/2 steps",
        "to_teacher/1 step",
        "held_out/loss",
        "loss",
        "loss/t0.2-0.5",
        "dF_dt_rms/t0.4",
    )
    figures = {name: ([1, 2], [1.0, math.nan]) for name in names}
    assert {name: list(curves) for name, curves in group_figures(figures).items()} == {
        "loss": ["held-out", "training"],
        "to_teacher": ["2 steps", "1 step"],
    }
    whole = group_figures(figures, everything=True)
    assert list(whole) == ["loss", "to_teacher", "dF_dt_rms", "rate"]
    assert list(whole["loss"]) == ["held-out", "training", "t0.2-0.5"]
    page = draw_panels(
        {"a<b": {"training": ([1, 2, 3], [1.0, 100.0, math.nan])}, "none": {"training": ([1], [math.nan])}}
    )
    assert page.count("<img") == 2
    assert 'alt="a&lt;b over steps"' in page


def test_long_curves_are_thinned_to_means():
    steps, values = thin((list(range(1, 1001)), [float(n % 2) for n in range(1, 1001)]), 100)
    assert len(steps) == 100
    assert steps[-1] == 1000
    assert set(values) == {0.5}
    assert thin(([1, 2], [0.0, 1.0]), 2) == ([1, 2], [0.0, 1.0])

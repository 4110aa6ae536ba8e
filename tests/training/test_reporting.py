"""Averages by bands of t against hand computation; what an interrupted run had logged too much is forgotten."""

from __future__ import annotations

import errno
import json
import math

import pytest
import torch

from scm_media.training.reporting import BANDS, DivergenceMonitor, Reporter, TermAverages


def test_bands_cover_all_times():
    assert BANDS[0] == 0
    assert BANDS[-1] == math.pi / 2
    assert list(BANDS) == sorted(BANDS)


def test_terms_are_averaged_in_all_and_by_bands_of_t():
    averages = TermAverages()
    averages.add({"t": torch.tensor([0.1, 0.6]), "loss": torch.tensor([1.0, 3.0]), "g": torch.tensor([0.0, 4.0])})
    averages.add({"t": torch.tensor([0.79, 1.5, 0.2]), "loss": torch.tensor([5.0, 7.0, 9.0]), "g": torch.zeros(3)})
    assert averages.take_means() == {
        "loss": 5.0,
        "g": pytest.approx(0.8),
        "loss/t0.0-0.2": 1.0,
        "loss/t0.2-0.5": 9.0,
        "loss/t0.5-0.8": 4.0,
        "loss/t1.4-1.6": 7.0,
        "g/t0.0-0.2": 0.0,
        "g/t0.2-0.5": 0.0,
        "g/t0.5-0.8": 2.0,
        "g/t1.4-1.6": 0.0,
    }


def test_averages_start_afresh_and_need_no_times():
    averages = TermAverages()
    averages.add({"loss": torch.tensor([2.0, 4.0])})
    assert averages.take_means() == {"loss": 3.0}
    assert averages.take_means() == {}


def reported(folder, start: int) -> list[int]:
    Reporter(folder, "teacher", 100, start).close()
    return [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_lines_past_the_checkpoint_and_half_lines_are_forgotten(tmp_path):
    lines = [json.dumps({"step": step, "loss": 0.1}) for step in (0, 10, 20, 20, 30)]
    (tmp_path / "metrics.jsonl").write_text("\n".join([*lines, '{"step": 40, "lo']))
    assert reported(tmp_path, 20) == [0, 10, 20, 20]
    assert reported(tmp_path, 0) == []


def test_a_figure_that_cannot_be_written_names_its_file(tmp_path):
    class Full:
        name = str(tmp_path / "metrics.jsonl")

        def write(self, text):
            raise OSError(errno.ENOSPC, "No space left on device")

        def close(self):
            pass

    reporter = Reporter(tmp_path, "teacher", 10, 0)
    reporter._lines.close()
    reporter._lines = Full()
    with pytest.raises(OSError, match=r"metrics\.jsonl was not written \(No space left on device\)"):
        reporter.log(1, {"loss": 1.0})


def test_progress_is_a_line_where_there_is_no_terminal(tmp_path, capsys):
    reporter = Reporter(tmp_path, "student", 100, 0)
    reporter.show(50, 0.25, 1000.0)
    reporter.close()
    said = capsys.readouterr().err
    assert "student 50/100: loss 0.2500, 1000 samples/s, 0:0" in said
    assert said.endswith(" left\n")


def test_a_students_figures_are_shown_as_last_measured(tmp_path, capsys):
    reporter = Reporter(tmp_path, "student", 100, 0)
    reporter.log(0, {"to_teacher/1 step": 0.5, "deviation/1 step": 1.0})
    reporter.log(10, {"g_rms": 0.25, "g_rms/t0.2-0.5": 9.0, "held_out/g_rms": 9.0})
    reporter.show(10, 0.25, 1000.0)
    reporter.close()
    said = capsys.readouterr().err
    assert "student 10/100: loss 0.2500, g_rms 0.250, to_teacher/1 step 0.500, 1000 samples/s" in said
    assert "warning" not in said


def test_a_student_that_leaves_its_teacher_is_warned_of_once_each_time():
    monitor = DivergenceMonitor()
    said = [
        bool(monitor.check({"to_teacher/2 steps": value})) for value in (0.6, 0.4, 0.59, 0.61, 0.7, 0.5, 0.61, None)
    ]
    assert said == [False, False, False, True, False, False, True, False]
    assert monitor.check({"to_teacher/1 step": math.nan}) == ["to_teacher/1 step is nan, which is not finite"]


def test_a_tangent_that_grows_is_warned_of_against_its_median():
    monitor = DivergenceMonitor()
    assert not any(monitor.check({"g_rms": value}) for value in (0.1, 0.9, *[0.2] * 8))
    assert monitor.check({"g_rms": 0.59}) == []
    assert monitor.check({"g_rms": 0.61}) == ["g_rms is 0.61, its median so far 0.2"]


def test_warnings_go_on_from_the_lines_of_the_run_before(tmp_path, capsys):
    first = Reporter(tmp_path, "student", 100, 0)
    for step, value in ((10, 0.4), (20, 0.1)):
        first.log(step, {"to_teacher/1 step": value})
    first.close()
    again = Reporter(tmp_path, "student", 100, 10)
    again.log(20, {"to_teacher/1 step": 0.5})
    assert capsys.readouterr().err == ""
    again.log(30, {"to_teacher/1 step": 0.7})
    again.close()
    said = capsys.readouterr().err
    assert "student 30/100: warning: to_teacher/1 step is 0.7, its best so far 0.4: look at the sheets" in said
    assert "lower student.optimizer.lr" in said

"""The method on points of the plane, with the core alone: the numbers of a small run, and the printed table."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).parents[2] / "examples" / "scm_in_one_file.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("scm_in_one_file", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "scm_in_one_file", module)  # dataclasses look for their module there
        spec.loader.exec_module(module)
        yield module


@pytest.fixture(scope="module")
def rows(script):
    return {row.name: row for row in script.run(teacher_steps=800, student_steps=600, batch_size=256, num=8000)}


@pytest.mark.slow
def test_two_steps_of_the_student_are_about_as_good_as_the_teacher(rows):
    teacher, student = rows["teacher, 32 Heun steps"], rows["student, 2 steps"]
    assert (teacher.evaluations, student.evaluations) == (63, 2)
    assert student.distance < 2 * teacher.distance
    assert student.distance < 0.35 * rows["noise"].distance
    assert student.strays < 0.25 * rows["noise"].strays


@pytest.mark.slow
def test_one_step_needs_the_student(rows):
    assert rows["student, 1 step"].distance < 0.35 * rows["noise"].distance
    assert rows["student, 1 step"].distance < 0.1 * rows["teacher, 1 step"].distance


@pytest.mark.slow
def test_fresh_data_are_near_the_data(rows):
    assert rows["fresh data"].distance < 0.2 * rows["noise"].distance
    assert rows["fresh data"].strays < 0.002


def test_the_data_have_the_standard_deviation_of_the_flow(script):
    torch.manual_seed(0)
    points = script.two_moons(200_000)
    torch.testing.assert_close(points.mean(0), torch.zeros(2), atol=0.01, rtol=0)
    torch.testing.assert_close(points.std(0), torch.full((2,), 0.5), atol=0.005, rtol=0)


def test_the_table_has_a_line_for_each_way_of_sampling(script, monkeypatch, capsys):
    arguments = "--teacher-steps 8 --student-steps 8 --batch-size 16 --num 100"
    monkeypatch.setattr(sys, "argv", ["scm_in_one_file.py", *arguments.split()])
    script.main()
    printed = capsys.readouterr().out
    for line in ("fresh data", "noise", "teacher, 32 Heun steps", "student, 1 step", "student, 2 steps"):
        assert re.search(rf"^{line} +\d+ +\d\.\d{{4}} +\d+\.\d %$", printed, re.MULTILINE), printed

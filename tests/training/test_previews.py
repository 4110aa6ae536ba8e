"""Sheets that training draws: a square of a teacher's samples, a row for each sampler of a student's."""

from __future__ import annotations

from PIL import Image

from tests.training.small import train


def test_one_sampler_makes_a_square_and_several_make_rows(tmp_path):
    few = (
        "trainer.num_preview_samples=4",
        "data.num=256",
        "teacher.max_steps=2",
        "teacher.warmup_steps=1",
        "student.max_steps=2",
    )
    run_dir = train(tmp_path / "run", *few)
    teacher, student = (Image.open(run_dir / stage / "samples" / "step-2.png") for stage in ("teacher", "student"))
    assert student.width > 1.9 * teacher.width
    assert student.height > 1.2 * teacher.height, "one step, two steps and the teacher"

"""Guides, guided teachers and the students that are distilled from them, through real trainings."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

import scm_media
from scm_media import recipe, weights
from scm_media.conditioning import Conditioning
from scm_media.guidance import Guided
from scm_media.training.context import prepare
from scm_media.training.stages.student import check_guidance, guided_teacher
from tests.training.small import SMALL, same, state, train

GUIDE = "guide={backbone: {width: 8, depth: 1}, max_steps: 4}"
CLIPS = torch.randn(3, 1, 16, 16, generator=torch.Generator().manual_seed(0))
TIMES = torch.tensor([0.3, 0.9, 1.4])
COND = Conditioning(labels={"class": torch.tensor([0, 1, 2])})


def context(run_dir, *overrides):
    """Returns the context of a run."""
    return prepare(recipe.compose("image/tiny", [*SMALL, f"run_dir={run_dir}", *overrides]))


@pytest.fixture(scope="module")
def guided_run(tmp_path_factory):
    return train(tmp_path_factory.mktemp("guided"), GUIDE, "sampler.guidance=2.0")


def test_a_guide_is_trained_as_the_teacher_but_for_what_it_says(guided_run, tmp_path):
    guide = weights.read(guided_run / "guide" / "weights.safetensors")
    assert (guide.config["width"], guide.info["step"]) == (8, 4)
    assert weights.read(guided_run / "teacher" / "weights.safetensors").config["width"] == 16
    alone = train(tmp_path / "alone", "backbone.width=8", "teacher.max_steps=4", "stage=autoencoder")
    train(alone, "backbone.width=8", "teacher.max_steps=4", "stage=teacher")
    assert {name: value.shape for name, value in state(alone, "teacher").items()} == {
        name: value.shape for name, value in guide.state.items()
    }
    again = train(tmp_path / "again", GUIDE, "sampler.guidance=2.0", "student.max_steps=0")
    assert same(state(again, "guide"), guide.state)
    assert same(state(again, "teacher"), state(guided_run, "teacher"))


def test_an_interrupted_guide_goes_on_to_the_same_weights(guided_run, tmp_path):
    train(tmp_path, "guide={backbone: {width: 8, depth: 1}, max_steps: 2}", "student.max_steps=0")
    train(tmp_path, GUIDE, "student.max_steps=0")
    assert same(state(tmp_path, "guide"), state(guided_run, "guide"))


def test_what_is_distilled_is_the_teacher_steered_away_from_its_guide(guided_run):
    shared = context(guided_run, GUIDE, "sampler.guidance=2.0")
    teacher, guide = shared.load_trained("teacher"), shared.load_trained("guide")
    F, F_guide = teacher(CLIPS, TIMES, COND), guide(CLIPS, TIMES, COND)
    assert not torch.allclose(F, F_guide, atol=1e-3)
    torch.testing.assert_close(guided_teacher(shared)(CLIPS, TIMES, COND), F_guide + 2.0 * (F - F_guide))
    plain = guided_teacher(context(guided_run, GUIDE))
    assert not isinstance(plain, Guided)
    torch.testing.assert_close(plain(CLIPS, TIMES, COND), F)


def test_guidance_reaches_the_students_weights(guided_run, tmp_path):
    plain = train(tmp_path, GUIDE)
    assert same(state(plain, "teacher"), state(guided_run, "teacher"))
    assert not same(state(plain, "student"), state(guided_run, "student"))


def test_a_finished_student_keeps_the_scale_it_was_distilled_at(guided_run):
    with pytest.raises(ValueError, match=r"sampler\.guidance: 2\.0 → 3\.0"):
        train(guided_run, GUIDE, "sampler.guidance=3.0")


def test_the_pipeline_guides_the_teacher_and_counts_both_networks(guided_run, tmp_path):
    pipeline = scm_media.load(guided_run, "cpu")
    teacher = pipeline(2, teacher=True, steps=3)
    assert teacher.evaluations == 2 * 5
    unguided = pipeline(2, teacher=True, steps=3, guidance=1.0)
    assert unguided.evaluations == 5
    assert not torch.allclose(teacher.samples, unguided.samples, atol=1e-3)
    assert pipeline(2, steps=2).evaluations == 2
    exported = pipeline.save_pretrained(tmp_path / "model")
    assert (exported / "guide.safetensors").is_file()
    card = (exported / "README.md").read_text()
    assert "- Guidance: the teacher is guided at scale 2, and the student was distilled from it so" in card
    assert torch.equal(scm_media.load(exported, "cpu")(2, teacher=True, steps=3).samples, teacher.samples)
    without = pipeline.save_pretrained(tmp_path / "small", teacher=False)
    assert not (without / "guide.safetensors").exists()


def test_one_student_for_any_scale(tmp_path):
    overrides = ("teacher.loss.label_dropout=0.2", "student.loss.guidance_max=4.0", "sampler.guidance=1.5")
    fresh = train(tmp_path / "fresh", *overrides, "student.max_steps=1", "student.optimizer.lr=0.0")
    student, teacher = state(fresh, "student"), state(fresh, "teacher")
    assert student.keys() > teacher.keys()
    assert all(name.startswith("guidance.") for name in student.keys() - teacher.keys())
    assert all(torch.equal(student[name], teacher[name]) for name in teacher)

    run_dir = train(tmp_path / "run", *overrides, "student.optimizer.lr=1e-2")
    assert json.loads((run_dir / "model.json").read_text())["guidance_max"] == 4.0
    pipeline = scm_media.load(run_dir, "cpu")
    default, same_scale, other = pipeline(2), pipeline(2, guidance=1.5), pipeline(2, guidance=3.5)
    assert torch.equal(default.samples, same_scale.samples)
    assert not torch.equal(default.samples, other.samples)
    assert other.evaluations == 2
    assert pipeline(2, teacher=True, steps=2).evaluations == 2 * 3


def test_the_scale_of_each_sample_reaches_the_teacher(tmp_path):
    overrides = ("teacher.loss.label_dropout=0.2", "student.loss.guidance_max=4.0")
    run_dir = train(tmp_path, *overrides, "student.max_steps=0")
    shared = context(run_dir, *overrides)
    teacher, scales = shared.load_trained("teacher"), torch.tensor([1.0, 2.0, 4.0])
    F, F_0 = teacher(CLIPS, TIMES, COND), teacher(CLIPS, TIMES, COND.drop(torch.ones(3, dtype=torch.bool)))
    expected = F_0 + scales[:, None, None, None] * (F - F_0)
    torch.testing.assert_close(guided_teacher(shared)(CLIPS, TIMES, replace(COND, guidance=scales)), expected)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("sampler.guidance=2.0",), r"sampler\.guidance 2\.0: the teacher has nothing to be steered away from"),
        (("stage=guide",), r"stage=guide: this recipe has none \(guide is null\)"),
        (("student.loss.guidance_max=3.0", "student.objective=sct"), r"guidance_max 3\.0 needs a teacher"),
        (("student.loss.guidance_max=1.0", "teacher.loss.label_dropout=0.1"), r"guidance_max must be above 1"),
        (("student.loss.guidance_max=2.0",), r"guidance_max 2\.0: the teacher has nothing to be steered away from"),
        (
            ("student.loss.guidance_max=2.0", "teacher.loss.label_dropout=0.1", "sampler.guidance=2.5"),
            r"sampler\.guidance 2\.5.*must lie in \[1, 2\.0\]",
        ),
        (
            ("loss@student.loss=distribution_matching", "trajectories=default", "student.loss.matching_guidance=1.1"),
            r"matching_guidance 1\.1 must be .* guided at one scale, got sampler\.guidance 1",
        ),
        (("sampler.guidance=null",), r"sampler\.guidance must be a number, got null"),
        (("sampler.guidance=-1",), r"sampler\.guidance must be at least 0, got -1"),
        (("sampler.guidance_interval=0.5",), r"guidance_interval must be .*got 0\.5"),
        (("sampler.guidance_interval=[1.0,0.5]",), r"guidance_interval must be \[low, high\]"),
    ],
)
def test_guidance_that_cannot_be_is_refused_before_anything_is_trained(tmp_path, overrides, message):
    with pytest.raises(ValueError, match=message):
        train(tmp_path, *overrides)
    assert not list(tmp_path.iterdir())


def test_guidance_by_labels_needs_labels(tmp_path):
    shared = context(tmp_path, "sampler.guidance=2.0", "teacher.loss.label_dropout=0.1")
    check_guidance(shared)
    shared.data.label_names = {}
    with pytest.raises(ValueError, match=r"sampler\.guidance 2\.0: the data has no labels"):
        check_guidance(shared)

"""The speed table: what is measured, that jobs take turns, and that data are timed or said to be missing."""

from __future__ import annotations

import math
import time

import pytest
import torch

from scm_media import ConsistencyLoss, recipe
from scm_media.build import build
from scm_media.evaluation import speed
from scm_media.evaluation.speed import measure_speed
from scm_media.evaluation.timing import in_turns
from scm_media.training.context import make_context
from scm_media.training.optimization import Optimization
from tests.training.small import SMALL

CPU = torch.device("cpu")


def small(*overrides: str) -> dict:
    return recipe.compose("image/tiny", [*SMALL, *overrides])


def test_jobs_take_turns():
    order = []
    jobs = {name: lambda name=name: order.append(name) for name in "ab"}
    jobs["slow"] = lambda: time.sleep(0.02)
    seconds = in_turns(jobs, 3)
    assert order == list("ababab")
    assert [len(each) for each in seconds.values()] == [3, 3, 3]
    assert min(seconds["slow"]) >= 0.02


def test_every_kind_of_step_is_in_the_table_with_its_ratio():
    table = measure_speed(small(), CPU, batch_size=4, repeats=2)
    names = [row["what"] for row in table["rows"]]
    assert names[:4] == ["diffusion step", "sCD step", "two-pass sCD step", "sCT step"]
    assert names[4:] == ["one evaluation", "decoding", "encoding", "loading a batch"]
    for row in table["rows"]:
        assert 0 < row["seconds_min"] <= row["seconds_median"] <= row["seconds_max"]
        assert row["ratio"] == pytest.approx(row["seconds_median"] / table["rows"][0]["seconds_median"])
    assert table["rows"][0]["ratio"] == 1
    assert (table["device"], table["batch_size"], table["left_out"]) == ("cpu", 4, {})
    assert table["data"]["examples"] == 64
    assert table["data"]["examples_per_second"] > 0
    assert 0 < table["data"]["wait_fraction"] < 1


def test_a_loss_that_needs_a_teacher_is_timed_from_data_in_its_other_direction():
    table = measure_speed(small("loss@student.loss=lagrangian_flow_map"), CPU, batch_size=2, repeats=1)
    assert {"sCD step", "sCT step"} <= {row["what"] for row in table["rows"]}


@pytest.mark.parametrize("loss", ["discrete_consistency", "discrete_grid"])
def test_a_loss_without_a_tangent_has_no_step_of_two_passes(loss):
    config = small("~student.loss.tangent_warmup", f"loss@student.loss={loss}")
    names = [row["what"] for row in measure_speed(config, CPU, batch_size=2, repeats=1)["rows"]]
    assert names[:4] == ["diffusion step", "sCD step", "sCT step", "one evaluation"]


def test_what_the_recipe_distils_by_two_calls_is_timed_too(monkeypatch):
    config = small("sampler.guidance=2.0", "teacher.loss.label_dropout=0.1", "conditioning.mask={types: [box]}")
    seen = []
    real = speed.Bench._optimization

    def watching(self, stage, backbone, loss, **teacher):
        if stage == "student":
            seen.append((type(teacher["teacher"]).__name__, loss["tangent_method"]))
        return real(self, stage, backbone, loss, **teacher)

    monkeypatch.setattr(speed.Bench, "_optimization", watching)
    table = measure_speed(config, CPU, batch_size=4, repeats=1)
    assert "sCD step, guided teacher" in [row["what"] for row in table["rows"]]
    assert seen == [
        ("Transformer", "one_pass"),
        ("Transformer", "forward"),
        ("NoneType", "one_pass"),
        ("Guided", "one_pass"),
    ]


def test_steps_are_those_of_the_training_loop(monkeypatch):
    taken = []
    real = Optimization.step

    def watch(self, arguments, step):
        figures = real(self, arguments, step)
        taken.append((self.task.name, len(self.task.separate_clip), math.isfinite(figures.loss)))
        return figures

    monkeypatch.setattr(Optimization, "step", watch)
    measure_speed(small("student.loss.weight=learned"), CPU, batch_size=4, repeats=1)
    # A warm-up and a round of the teacher and of three students, then two steps that are fed by the loader.
    assert taken == [("teacher", 1, True), *[("student", 1, True)] * 3] * 2 + [("teacher", 1, True)] * 2


def test_every_training_step_changes_the_weights_of_its_network(monkeypatch):
    """A loss freezes its teacher: a diffusion step of that network would have no backward pass and look cheap."""
    changed = []
    real = Optimization.step

    def watch(self, arguments, step):
        before = [each.detach().clone() for each in self.task.model.parameters()]
        figures = real(self, arguments, step)
        moved = [not torch.equal(old, new) for old, new in zip(before, self.task.model.parameters(), strict=True)]
        changed.append((self.task.name, any(moved), figures.gradient_norm > 0))
        return figures

    monkeypatch.setattr(Optimization, "step", watch)
    measure_speed(small(), CPU, batch_size=4, repeats=1)
    assert {each[0] for each in changed} == {"teacher", "student"}
    assert all(moved and gradient for _, moved, gradient in changed)


def test_slow_data_are_waited_for(monkeypatch):
    from scm_media.data.shapes import ShapesDataset

    real = ShapesDataset.batch

    def slow(self, indices, generators=None):
        time.sleep(0.3)
        return real(self, indices, generators)

    monkeypatch.setattr(ShapesDataset, "batch", slow)
    data = measure_speed(small(), CPU, batch_size=4, repeats=2)["data"]
    assert data["examples_per_second"] < 4 / 0.3
    assert data["wait_fraction"] > 0.4


def test_without_data_all_else_is_timed_and_the_reason_told(tmp_path):
    config = small()
    config["data"] = {"_target_": "scm_media.data.folder.FolderDataset", "root": str(tmp_path / "nowhere")}
    table = measure_speed(config, CPU, batch_size=4, repeats=1, labels={"class": ["a", "b"]})
    assert "nowhere" in table["data"]["missing"]
    assert [row["what"] for row in table["rows"]][-1] == "encoding"
    assert all(math.isfinite(row["ratio"]) for row in table["rows"])


def test_a_way_to_the_tangent_that_fails_is_left_out_with_its_reason(monkeypatch):
    real = ConsistencyLoss.forward

    def without_forward(self, *arguments, **options):
        if self.tangent_method == "forward":
            raise NotImplementedError("no forward-mode rule\nfor this")
        return real(self, *arguments, **options)

    monkeypatch.setattr(ConsistencyLoss, "forward", without_forward)
    table = measure_speed(small(), CPU, batch_size=2, repeats=1)
    assert table["left_out"] == {"two-pass sCD step": "no forward-mode rule"}
    assert "two-pass sCD step" not in [row["what"] for row in table["rows"]]


def test_no_batch_is_refused():
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        measure_speed(small(), CPU, batch_size=0)


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ((), "sCD step"),
        (("sampler.guidance=2", "teacher.loss.label_dropout=0.1"), "sCD step, guided teacher"),
        (
            (
                "loss@student.loss=distribution_matching",
                "~student.loss.tangent_warmup",
                "trajectories=default",
                "warm_start=regression",
            ),
            "student step",
        ),
    ],
)
def test_the_students_own_step_is_among_those_that_are_timed(words, name):
    config = small(*words)
    data = speed.AbsentData((1, 16, 16), {"class": ("a", "b")})
    bench = speed.Bench(make_context(config, build(config["modality"], "modality"), data, data), CPU, 2)
    assert bench.student_step == name and name in bench.jobs()

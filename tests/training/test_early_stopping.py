"""A stage ends when its averages' held-out loss no longer falls, and keeps those of the best validation."""

from __future__ import annotations

import math
import os
import shutil
import signal

import pytest
import torch

from scm_media import recipe, weights
from scm_media.ema import gamma_from_std
from scm_media.training import checkpoints
from scm_media.training.early_stopping import EarlyStopping, has_ended
from scm_media.training.fingerprint import training_fingerprint
from scm_media.training.stages.student import check_patience
from tests.training.small import Slope, metrics, run_task, same, state, train

STEPS = 40
LIMITS = {"patience": 3}
EACH = {"validate_every": 2, "checkpoint_every": 1}


class Overfitting(Slope):
    """Training lowers w by one a step; the held-out loss is (w + 8)², least after eight steps or a few more.

    act: called with the number of each step, counted from 0.
    """

    def __init__(self, act=lambda step: None, value=lambda w: (w + 8) ** 2) -> None:
        super().__init__()
        self.act, self.value = act, value

    def forward(self, x, step):
        if self.training:
            self.act(int(step))
            loss, terms = super().forward(torch.ones_like(x), step)
            return loss, terms
        each = self.value(self.net.weight.squeeze()).expand(len(x))
        return each.mean(), {"loss": each}


def averages(num: int) -> list[float]:
    """Returns the average of the weights −1, −2, … after each of ``num`` steps, from 0 on."""
    found = [0.0]
    for step in range(1, num + 1):
        beta = (1 - 1 / step) ** (gamma_from_std(0.05) + 1)
        found.append(beta * found[-1] + (1 - beta) * -step)
    return found


AVERAGES = averages(STEPS)
HELD_OUT = {step: (AVERAGES[step] + 8) ** 2 for step in range(2, STEPS + 1, 2)}
BEST = min(HELD_OUT, key=lambda step: HELD_OUT[step])
END = BEST + 6


def run(folder, loss=None, max_steps=STEPS, settings=LIMITS, **trainer):
    """Trains and returns what was written: the averaged weight, its step, and the header's other entries."""
    written = []

    def finish(averaged, step, header):
        written.append((averaged["weight"].item(), step, header))

    run_task(folder, loss or Overfitting(), max_steps, finish=finish, settings=settings, **{**EACH, **trainer})
    assert len(written) == 1
    return written[0]


def test_it_ends_after_patience_validations_and_keeps_the_best_averages(tmp_path, capsys):
    weight, step, header = run(tmp_path)
    assert (step, header) == (BEST, {"last_step": END, "num_worse": 3})
    assert BEST < END < STEPS
    assert weight == pytest.approx(AVERAGES[BEST], rel=1e-5)
    held_out = {line["step"]: line["held_out/loss"] for line in metrics(tmp_path) if "held_out/loss" in line}
    assert held_out == pytest.approx({each: HELD_OUT[each] for each in range(2, END + 1, 2)}, rel=1e-4)
    assert max(line["step"] for line in metrics(tmp_path)) == END == checkpoints.steps(tmp_path / "checkpoints")[-1]
    assert f"teacher: stopped at step {END}, after 3 validations" in capsys.readouterr().err


def test_without_patience_the_last_averages_are_kept(tmp_path):
    weight, step, header = run(tmp_path, settings={})
    assert (step, header) == (STEPS, {})
    assert weight == pytest.approx(AVERAGES[STEPS], rel=1e-5)


def test_the_best_averages_are_kept_when_all_steps_are_made(tmp_path):
    weight, step, header = run(tmp_path, max_steps=BEST + 3)
    assert (step, header) == (BEST, {"last_step": BEST + 3, "num_worse": 2})
    assert weight == pytest.approx(AVERAGES[BEST], rel=1e-5)


class Killed(Exception):
    pass


@pytest.mark.parametrize("stop", range(BEST - 2, END))
def test_killed_and_resumed_it_keeps_the_same(tmp_path, stop):
    def kill(step):
        if step == stop:
            raise Killed

    straight = run(tmp_path / "straight")
    with pytest.raises(Killed):
        run(tmp_path / "resumed", Overfitting(kill))
    assert run(tmp_path / "resumed") == straight
    lines = [(line["step"], line.get("held_out/loss")) for line in metrics(tmp_path / "resumed")]
    assert lines == [(line["step"], line.get("held_out/loss")) for line in metrics(tmp_path / "straight")]


@pytest.mark.parametrize("stop", [BEST - 1, BEST, BEST + 1, END - 1])
def test_interrupted_and_resumed_it_counts_the_same_validations(tmp_path, stop):
    def interrupt(step):
        if step == stop:
            os.kill(os.getpid(), signal.SIGTERM)

    straight = run(tmp_path / "straight")
    with pytest.raises(SystemExit):
        run(tmp_path / "resumed", Overfitting(interrupt))
    assert checkpoints.steps(tmp_path / "resumed" / "checkpoints")[-1] == stop + 1
    assert run(tmp_path / "resumed") == straight


def test_more_patience_goes_on_as_if_it_had_been_there_and_less_does_not(tmp_path, capsys):
    before = run(tmp_path)
    assert run(tmp_path) == before
    assert run(tmp_path, settings={"patience": 1}) == before
    assert f"trained to step {END} before" in capsys.readouterr().err
    after = run(tmp_path, settings={"patience": 5})
    assert after[:2] == before[:2]
    assert after[2] == {"last_step": END + 4, "num_worse": 5}
    assert run(tmp_path / "straight", settings={"patience": 5}) == after
    assert run(tmp_path, settings={})[1:] == (STEPS, {})


def test_a_checkpoint_holds_the_best_averages_once(tmp_path):
    run(tmp_path, keep_checkpoints=100)
    best, later = (checkpoints.load(tmp_path / "checkpoints", step) for step in (BEST, BEST + 1))
    assert best["stopping"]["weights"] is None
    assert torch.equal(later["stopping"]["weights"]["weight"], best["ema"]["weight"])
    assert not torch.equal(later["stopping"]["weights"]["weight"], later["ema"]["weight"])


def test_a_held_out_loss_that_is_not_finite_counts_as_worse(tmp_path, capsys):
    weight, step, header = run(tmp_path, Overfitting(value=lambda w: w * math.nan))
    assert (step, header) == (6, {})
    assert weight == pytest.approx(AVERAGES[6], rel=1e-5)
    assert "no held-out loss was finite" in capsys.readouterr().err


class Device:
    """One of two devices; ``said`` is what the first one told all."""

    def __init__(self, said=None) -> None:
        self.said = said

    def broadcast(self, value):
        self.said = value if self.said is None else self.said
        return self.said


def test_a_device_that_does_not_validate_ends_with_the_first():
    ema = type("Averages", (), {"averaged": {"weight": torch.zeros(1)}, "step": 1})()
    for losses in ([3.0, 2.0, 4.0, 5.0], [1.0, 1.0, math.nan]):
        own, other = EarlyStopping(2), EarlyStopping(2)
        for step, loss in enumerate(losses):
            first = Device()
            ends = own.update(first, step, {"held_out/loss": loss}, ema)
            assert other.update(Device(first.said), step, None, ema) is ends
        assert ends


def test_weights_say_whether_their_training_has_ended():
    settings = {"max_steps": 10, "patience": 2}
    assert has_ended({"step": 10}, settings)
    assert not has_ended({"step": 8}, settings)
    assert has_ended({"step": 4, "last_step": 8, "num_worse": 2}, settings)
    assert not has_ended({"step": 4, "last_step": 8, "num_worse": 2}, settings | {"patience": 3})
    assert not has_ended({"step": 4, "last_step": 8, "num_worse": 2}, settings | {"patience": None})
    assert has_ended({"step": 4, "last_step": 10, "num_worse": 1}, settings)


STILL = ("teacher.patience=1", "teacher.optimizer.lr=0.0", "trainer.validate_every=2", "student.max_steps=0")
"""Weights that do not move: the second validation, at step 4 of 6, is no better than the first."""


def test_a_stage_that_stopped_early_is_finished(tmp_path, capsys):
    run_dir = train(tmp_path, *STILL)
    info = weights.read_info(run_dir / "teacher" / "weights.safetensors")
    assert (info["step"], info["last_step"], info["num_worse"]) == (2, 4, 1)
    # How it was trained no longer matters, as for a stage that made all its steps.
    train(tmp_path, *STILL, "teacher.warmup_steps=3", "student.max_steps=2")
    kept = state(run_dir, "teacher")
    shutil.rmtree(run_dir / "teacher" / "checkpoints")
    capsys.readouterr()
    train(tmp_path, *STILL)
    assert "teacher: its weights are trained, its checkpoints gone" in capsys.readouterr().err
    assert same(kept, state(run_dir, "teacher"))
    with pytest.raises(ValueError, match=r"is trained to step 4 and has no checkpoint to go on from to teacher\.max"):
        train(tmp_path, *STILL, "teacher.patience=null")


def test_patience_may_change_and_is_the_guides_too():
    config = recipe.compose("image/tiny", ["+guide={max_steps: 4, backbone: {width: 8}}", "teacher.patience=4"])
    other = recipe.compose("image/tiny", ["+guide={max_steps: 4, backbone: {width: 8}}"])
    for stage in ("teacher", "guide"):
        assert training_fingerprint(config, stage) == training_fingerprint(other, stage)


def test_a_student_has_patience_only_where_its_loss_is_an_error():
    config = recipe.compose("image/tiny", ["student.patience=4"])
    with pytest.raises(ValueError, match=r"student\.patience 4: the value of ConsistencyLoss on held-out data"):
        check_patience(config)
    regression = {**config["student"], "loss": {"_target_": "scm_media.losses.RegressionLoss"}}
    check_patience({**config, "student": regression})
    check_patience(recipe.compose("image/tiny", []))

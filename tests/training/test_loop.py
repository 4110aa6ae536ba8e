"""The loop on tasks whose steps are worked out by hand."""

from __future__ import annotations

import json
import math
import time

import pytest
import torch
from torch import nn

from scm_media.ema import gamma_from_std
from scm_media.fabric import Fabric
from scm_media.training import checkpoints
from tests.training.small import Numbers, Slope, metrics, run_task, same, state, train


def test_each_step_descends_by_rate_times_gradient(tmp_path):
    assert run_task(tmp_path, Slope([2.0]), 3)["net.weight"].item() == -6.0


class WithAuxiliary(Slope):
    """The loss of Slope, and that of a second network with the slope 4."""

    def __init__(self) -> None:
        super().__init__([2.0])
        self.auxiliary, self.auxiliary_rate = Slope([4.0]).net, 3.0

    def forward(self, x, step):
        loss, terms = super().forward(x, step)
        return loss + self.auxiliary(torch.full((1, 1), 4.0)).sum(), terms


def test_an_auxiliary_network_has_its_own_rate_and_its_own_clip(tmp_path):
    plain = run_task(tmp_path / "plain", WithAuxiliary(), 3)
    assert (plain["net.weight"].item(), plain["auxiliary.weight"].item()) == (-6.0, -36.0)
    clipped = run_task(tmp_path / "clipped", WithAuxiliary(), 2, gradient_clip=1.0)
    assert clipped["net.weight"].item() == pytest.approx(-2.0, rel=1e-4)
    assert clipped["auxiliary.weight"].item() == pytest.approx(-6.0, rel=1e-4)


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        ({"warmup_steps": 4}, [0.25, 0.5, 0.75, 1.0]),
        ({"decay": "cosine"}, [1.0, 0.5 + 0.5**1.5, 0.5, 0.5 - 0.5**1.5]),
        ({"decay": "inverse_sqrt", "decay_steps": 1}, [1.0, 1.0, 0.5**0.5, 3**-0.5]),
    ],
)
def test_each_step_has_the_rate_of_its_schedule(tmp_path, schedule, rates):
    after = run_task(tmp_path, Slope([2.0]), 4, settings=schedule)["net.weight"].item()
    assert after == pytest.approx(-2 * sum(rates), rel=1e-6)
    assert [line["rate"] for line in metrics(tmp_path) if "rate" in line] == pytest.approx(rates)


def test_the_average_has_the_weights_of_each_step_by_its_number(tmp_path):
    averages = []
    for steps in (1, 2, 3):
        run_task(
            tmp_path,
            Slope([1.0]),
            steps,
            finish=lambda averaged, step, header: averages.append(averaged["weight"].item()),
        )
    expected, average = [], 0.0
    for step in (1, 2, 3):  # the weight after it is -step
        beta = (1 - 1 / step) ** (gamma_from_std(0.05) + 1)
        average = beta * average + (1 - beta) * -step
        expected.append(average)
    assert averages == pytest.approx(expected, rel=1e-5)
    assert averages[0] == -1.0, "the first step replaces the initial weights"


def test_steps_after_validation_and_sheets_are_in_training_mode(tmp_path):
    seen = []

    class Watching(Slope):
        def forward(self, x, step):
            if torch.is_grad_enabled():
                seen.append((self.training, self.net.training))
            else:
                assert not self.training
            return super().forward(x, step)

    run_task(tmp_path / "validated", Watching(), 4, validate_every=1)
    run_task(tmp_path / "sampled", Watching(), 4, preview=lambda model, step, folder: {}, sample_every=1)
    assert seen == [(True, True)] * 8


def test_sheets_are_of_the_average_and_training_goes_on_from_the_weights(tmp_path):
    drawn = []

    def preview(model, step, folder):
        drawn.append(model.weight.item())
        return {}

    assert run_task(tmp_path, Slope(), 3, preview=preview, sample_every=1)["net.weight"].item() == -3.0
    assert drawn[:2] == [0.0, -1.0]
    assert -2 < drawn[2] < -1


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_steps_that_are_not_finite_are_skipped_and_counted(tmp_path, bad):
    loss = Slope([1.0], {1: bad, 2: bad, 4: bad})
    assert run_task(tmp_path, loss, 6)["net.weight"].item() == -3.0
    assert [line["skipped_steps"] for line in metrics(tmp_path) if "skipped_steps" in line] == [0, 1, 2, 2, 3, 3]
    assert checkpoints.load(tmp_path / "checkpoints", 6)["skipped"] == 3


class Recorded(Slope):
    """Slope that keeps what a burst must not touch, as it is at the beginning of each step."""

    def __init__(self, factors=None) -> None:
        super().__init__([1.0], factors)
        self.seen: list[torch.Tensor] = []

    def forward(self, x, step):
        self.seen.append(self.net.weight.detach().clone())
        return super().forward(x, step)


def test_a_burst_leaves_weights_and_the_optimizers_averages_as_they_were(tmp_path):
    adam = {"optimizer": {"_target_": "torch.optim.Adam", "lr": 0.5}}
    burst = Recorded(dict.fromkeys(range(2, 8), math.nan))
    run_task(
        tmp_path / "burst", burst, 10, settings=adam, max_nonfinite_steps=6, checkpoint_every=2, keep_checkpoints=9
    )
    assert all(torch.equal(weight, burst.seen[2]) for weight in burst.seen[3:9])
    kept = [checkpoints.load(tmp_path / "burst" / "checkpoints", step) for step in (2, 4, 6, 8)]
    for each in kept[1:]:
        assert same(kept[0]["optimizer"]["state"][0], each["optimizer"]["state"][0])
    averages = torch.stack([each["ema"]["weight"] for each in kept])
    assert torch.isfinite(averages).all()
    assert (averages >= burst.seen[2]).all() and (averages <= 0).all(), "means of weights that there were"
    plain = Recorded()
    run_task(tmp_path / "plain", plain, 4, settings=adam)
    assert torch.equal(burst.seen[9], plain.seen[3]), "as if the steps of the burst had not been"


def test_steps_that_stay_not_finite_end_the_run_with_a_remedy(tmp_path):
    loss = Slope([1.0], dict.fromkeys(range(2, 100), math.nan))
    with pytest.raises(
        ValueError, match=r"teacher: .* not finite for 3 steps in a row \(to step 4\): lower teacher\.opt"
    ):
        run_task(tmp_path, loss, 100, checkpoint_every=1)
    assert loss.net.weight.item() == -2.0
    assert checkpoints.steps(tmp_path / "checkpoints")[-1] == 4


def test_skipped_steps_in_a_row_are_counted_over_a_resumption(tmp_path):
    loss = Slope([1.0], dict.fromkeys(range(2, 100), math.nan))
    run_task(tmp_path, loss, 4)
    with pytest.raises(ValueError, match=r"not finite for 3 steps in a row \(to step 4\)"):
        run_task(tmp_path, loss, 100)


def test_what_is_not_finite_is_null_in_the_lines(tmp_path):
    run_task(tmp_path, Slope([1.0], {1: math.nan}), 2)
    text = (tmp_path / "metrics.jsonl").read_text()
    assert "NaN" not in text
    lines = [json.loads(line) for line in text.splitlines()]
    assert [line["loss"] for line in lines if "loss" in line] == [0.0, None]


@pytest.mark.parametrize(("precision", "narrow"), [("32-true", False), ("bf16-mixed", True)])
def test_validation_and_sheets_are_in_the_trainings_precision(tmp_path, precision, narrow):
    seen = []

    class Watching(Slope):
        def forward(self, x, step):
            seen.append(("loss" if self.training else "held_out", torch.is_autocast_enabled("cpu")))
            return super().forward(x, step)

    def preview(model, step, folder):
        seen.append(("sheet", torch.is_autocast_enabled("cpu")))
        return {}

    fabric = Fabric(accelerator="cpu", devices=1, precision=precision)
    run_task(tmp_path, Watching(), 1, fabric=fabric, preview=preview)
    assert set(seen) == {("loss", narrow), ("held_out", narrow), ("sheet", narrow)}


def test_bf16_is_resumed_to_the_bit(tmp_path):
    overrides = ("precision=bf16-mixed", "student.max_steps=0")
    straight = train(tmp_path / "straight", *overrides, "teacher.max_steps=4")
    train(tmp_path / "resumed", *overrides, "teacher.max_steps=2")
    train(tmp_path / "resumed", *overrides, "teacher.max_steps=4")
    assert same(state(straight, "teacher"), state(tmp_path / "resumed", "teacher"))
    wide = train(tmp_path / "wide", "student.max_steps=0", "teacher.max_steps=4")
    assert not same(state(straight, "teacher"), state(wide, "teacher"))


@pytest.mark.parametrize(("of_data", "of_step", "low", "high"), [(0.0, 0.1, 0.0, 0.5), (0.1, 0.0, 0.5, 1.0)])
def test_the_fraction_of_time_that_steps_wait_for_data_is_logged(tmp_path, capsys, of_data, of_step, low, high):
    class SlowData(Numbers):
        def batch(self, indices, generators=None):
            time.sleep(of_data)
            return super().batch(indices, generators)

    class SlowStep(Slope):
        def forward(self, x, step):
            time.sleep(of_step)
            return super().forward(x, step)

    run_task(tmp_path, SlowStep(), 4, data=SlowData(), log_every=2)
    fractions = [line["data_wait"] for line in metrics(tmp_path) if "data_wait" in line]
    assert len(fractions) == 2
    assert all(low <= fraction <= high for fraction in fractions)
    assert f"{100 * fractions[-1]:.0f} % waiting for data" in capsys.readouterr().err


class Second(Fabric):
    """A device that is not the first."""

    global_rank, world_size = 1, 2


def test_a_stage_that_is_done_is_written_by_the_first_device_alone(tmp_path):
    written = []
    run_task(tmp_path, Slope(), 2, finish=lambda averaged, step, header: written.append(step))
    assert written == [2]
    for kind, expected in ((Second, [2]), (Fabric, [2, 2])):
        fabric = kind(accelerator="cpu", devices=1)
        run_task(tmp_path, Slope(), 2, fabric=fabric, finish=lambda averaged, step, header: written.append(step))
        assert written == expected


class InfiniteGradient(Slope):
    """A finite loss whose gradient is not: the derivative of sqrt at 0."""

    def forward(self, x, step):
        loss, terms = super().forward(x, step)
        if step == 1:
            loss = loss + (self.net.weight - self.net.weight.detach()).sqrt().sum()
        return loss, terms


def test_a_gradient_that_is_not_finite_is_skipped_though_the_loss_is(tmp_path):
    assert run_task(tmp_path, InfiniteGradient(), 3)["net.weight"].item() == -2.0
    lines = [line for line in metrics(tmp_path) if "skipped_steps" in line]
    assert [line["skipped_steps"] for line in lines] == [0, 1, 1]
    assert all(math.isfinite(line["total"]) for line in lines)


@pytest.mark.parametrize(("limit", "moved"), [(1.0, [-0.6, -0.8]), (None, [-3.0, -4.0]), (10.0, [-3.0, -4.0])])
def test_gradients_are_clipped_by_their_norm(tmp_path, limit, moved):
    weight = run_task(tmp_path, Slope([3.0, 4.0]), 1, gradient_clip=limit)["net.weight"]
    torch.testing.assert_close(weight, torch.tensor([moved]), rtol=1e-5, atol=0)
    assert metrics(tmp_path)[0]["gradient_norm"] == pytest.approx(5.0)


class SlopeWithWeight(Slope):
    """A learned weight beside the network, with a gradient a thousand times as large, or none that is finite."""

    def __init__(self, slope: float) -> None:
        super().__init__([3.0, 4.0])
        self.weight, self.slope = nn.Linear(1, 1, bias=False), slope
        nn.init.zeros_(self.weight.weight)

    def forward(self, x, step):
        loss, terms = super().forward(x, step)
        return loss + self.slope * self.weight.weight.sum(), terms


def test_a_learned_weight_is_clipped_on_its_own(tmp_path):
    after = run_task(tmp_path, SlopeWithWeight(5000.0), 1, gradient_clip=1.0)
    torch.testing.assert_close(after["net.weight"], torch.tensor([[-0.6, -0.8]]), rtol=1e-5, atol=0)
    torch.testing.assert_close(after["weight.weight"], torch.tensor([[-1.0]]), rtol=1e-5, atol=0)


def test_accumulated_steps_see_the_same_data_and_make_the_same_step(tmp_path):
    class Product(Slope):
        def forward(self, x, step):
            each = (self.net(x).squeeze(1) - 0.01 * x.squeeze(1)).square() / 1000
            return each.mean(), {"loss": each.detach()}

    whole, halves, quarters = Numbers(), Numbers(), Numbers()
    one = run_task(tmp_path / "1", Product(), 9, whole)
    two = run_task(tmp_path / "2", Product(), 9, halves, accumulate=2)
    four = run_task(tmp_path / "4", Product(), 9, quarters, accumulate=4)
    assert whole.seen == halves.seen == quarters.seen
    assert len(whole.seen) == 36
    for other in (two, four):
        torch.testing.assert_close(other, one, rtol=1e-5, atol=0)
    losses = [[line["loss"] for line in metrics(tmp_path / n) if "loss" in line] for n in "124"]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert losses[2] == pytest.approx(losses[0], rel=1e-4)


@pytest.mark.slow
def test_accumulation_is_resumed_to_the_bit(tmp_path):
    straight = train(tmp_path / "straight", "trainer.accumulate=2", "student.max_steps=0")
    train(tmp_path / "resumed", "trainer.accumulate=2", "student.max_steps=0", "teacher.max_steps=2")
    train(tmp_path / "resumed", "trainer.accumulate=2", "student.max_steps=0")
    assert same(state(straight, "teacher"), state(tmp_path / "resumed", "teacher"))


def test_a_batch_that_devices_and_passes_do_not_divide_is_refused(tmp_path):
    with pytest.raises(
        ValueError, match=r"teacher\.batch_size 4 must be a multiple of 1 parts .* x trainer\.accumulate 3: set one"
    ):
        run_task(tmp_path, Slope(), 1, accumulate=3)


def test_validation_and_sheets_leave_the_training_as_it_is(tmp_path):
    never = train(tmp_path / "never")
    always = train(tmp_path / "always", "trainer.validate_every=1", "trainer.sample_every=1")
    assert len(list((always / "student" / "samples").iterdir())) == 7
    assert sum("held_out/loss" in line for line in metrics(always / "student")) == 6
    for stage in ("teacher", "student"):
        assert same(state(never, stage), state(always, stage))


def test_held_out_loss_is_of_the_same_samples_times_and_noise_every_time(tmp_path):
    run_dir = train(tmp_path, "trainer.validate_every=1", "teacher.optimizer.lr=0.0", "student.max_steps=0")
    held_out = [line["held_out/loss"] for line in metrics(run_dir / "teacher") if "held_out/loss" in line]
    assert len(held_out) == 6
    assert len(set(held_out)) == 1


def test_learned_weight_of_a_student_stays_zero_until_r_is_one(tmp_path):
    train(tmp_path, "stage=autoencoder")
    train(tmp_path, "stage=teacher")
    overrides = (
        "stage=student",
        "student.loss.weight=learned",
        "student.loss.tangent_warmup=4",
        "student.optimizer.lr=1e-2",
        "trainer.checkpoint_every=1",
        "trainer.keep_checkpoints=9",
    )
    train(tmp_path, *overrides)
    for step in range(1, 7):
        loss = checkpoints.load(tmp_path / "student" / "checkpoints", step)["loss"]
        largest = max(loss["weight.linear.weight"].abs().max().item(), loss["weight.linear.bias"].abs().max().item())
        # r = step / 4 reaches 1 in the step counted 4 from 0, the fifth.
        assert (largest == 0.0) == (step <= 4), f"after {step} steps: {largest}"
    assert all(
        line["weight"] == 0.0 for line in metrics(tmp_path / "student") if "weight" in line and line["step"] <= 5
    )

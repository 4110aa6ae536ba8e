from __future__ import annotations

import pytest
import torch
from torch import nn

from scm_media.ema import PowerEMA, combination, gamma_from_std, reconstruct
from scm_media.nn.magnitude import MPLinear


class Moving(nn.Module):
    """One weight, one buffer and one counter, set by the test."""

    def __init__(self, dtype=torch.float32):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3, dtype=dtype))
        self.register_buffer("mean", torch.zeros(2))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def move(self, step, num_steps):
        x = step / num_steps
        self.weight.copy_(torch.tensor([x, x**2, 1 - x]))
        self.mean.fill_(x)
        self.count.fill_(step)


def averaged(std, num_steps=2000, dtype=torch.float32):
    module = Moving(dtype)
    ema = PowerEMA(module, std)
    for step in range(1, num_steps + 1):
        module.move(step, num_steps)
        ema.update(step)
    return module, ema


@pytest.mark.parametrize(("std", "gamma"), [(0.05, 16.97), (0.10, 6.94)])
def test_gamma_is_that_of_the_paper(std, gamma):
    assert gamma_from_std(std) == pytest.approx(gamma, abs=0.01)


@pytest.mark.parametrize("std", [0.01, 0.05, 0.2, 12**-0.5])
def test_gamma_gives_the_deviation_back(std):
    g = gamma_from_std(std)
    assert ((g + 1) / ((g + 2) ** 2 * (g + 3))) ** 0.5 == pytest.approx(std)


@pytest.mark.parametrize("std", [0.0, -0.1, 0.3])
def test_deviations_without_a_gamma_are_refused(std):
    with pytest.raises(ValueError, match="ema_std"):
        gamma_from_std(std)


@pytest.mark.parametrize("std", [0.05, 0.15])
def test_the_average_has_the_power_profile(std):
    _, ema = averaged(std)
    g = gamma_from_std(std)
    mean, square = (g + 1) / (g + 2), (g + 1) / (g + 3)
    assert ema.averaged["weight"].tolist() == pytest.approx([mean, square, 1 - mean], abs=2e-3)
    deviation = (ema.averaged["weight"][1] - ema.averaged["weight"][0] ** 2).sqrt()
    assert deviation.item() == pytest.approx(std, rel=0.03)


def test_the_first_step_forgets_the_initial_weights():
    module = Moving()
    ema = PowerEMA(module)
    module.move(1, 1)
    ema.update(1)
    assert torch.equal(ema.averaged["weight"], module.weight.detach())


def test_buffers_are_copied():
    _, ema = averaged(0.1, num_steps=7)
    assert ema.averaged["mean"].tolist() == [1.0, 1.0]
    assert ema.averaged["count"].item() == 7


def test_low_precision_weights_are_averaged_in_float32():
    module, ema = averaged(0.05, dtype=torch.bfloat16)
    assert ema.averaged["weight"].dtype == torch.float32
    _, reference = averaged(0.05)
    torch.testing.assert_close(ema.averaged["weight"], reference.averaged["weight"], atol=5e-3, rtol=0)
    ema.copy_to(module)
    assert module.weight.dtype == torch.bfloat16
    torch.testing.assert_close(module.weight, ema.averaged["weight"].bfloat16())


def test_averages_go_on_to_the_bit_after_a_round_trip():
    _, undisturbed = averaged(0.07, num_steps=50)
    module = Moving()
    ema = PowerEMA(module, 0.07)
    for step in range(1, 51):
        module.move(step, 50)
        ema.update(step)
        if step == 23:
            saved = {name: value.clone() for name, value in ema.state_dict().items()}
            ema = PowerEMA(module, 0.07)
            ema.load_state_dict(saved)
    assert all(torch.equal(ema.averaged[name], value) for name, value in undisturbed.averaged.items())


def test_the_average_does_not_follow_the_module_between_updates():
    module, ema = averaged(0.05, num_steps=5)
    before = {name: value.clone() for name, value in ema.averaged.items()}
    module.move(1, 100)
    assert all(torch.equal(ema.averaged[name], value) for name, value in before.items())


def test_a_foreign_state_is_refused():
    ema = PowerEMA(Moving())
    with pytest.raises(ValueError, match=r"missing \['weight'\], unexpected \['bias'\]"):
        ema.load_state_dict({"bias": torch.zeros(1), "mean": torch.zeros(2), "count": torch.zeros(())})


def test_steps_count_from_one():
    with pytest.raises(ValueError, match="from 1"):
        PowerEMA(Moving()).update(0)


def test_an_average_of_another_length_is_rebuilt_afterwards():
    module = Moving()
    narrow, wide, wanted = (PowerEMA(module, std) for std in (0.05, 0.1, 0.15))
    snapshots = []
    for step in range(1, 2001):
        module.move(step, 2000)
        for ema in (narrow, wide, wanted):
            ema.update(step)
        if step % 250 == 0:
            for ema in (narrow, wide):
                snapshots.append((ema.std, step, {name: value.clone() for name, value in ema.averaged.items()}))
    rebuilt = reconstruct(snapshots, 0.15, 2000)
    torch.testing.assert_close(rebuilt["weight"], wanted.averaged["weight"], atol=5e-3, rtol=0)
    assert rebuilt["count"].item() == 2000
    same = reconstruct(snapshots, 0.1, 2000)
    torch.testing.assert_close(same["weight"], wide.averaged["weight"], atol=1e-5, rtol=0)


def test_rebuilt_weights_keep_their_size():
    snapshots = [(std, step) for step in range(2000, 23001, 2000) for std in (0.05, 0.10)]
    for std in (0.025, 0.05, 0.10, 0.18, 0.25):
        assert sum(combination(snapshots, std, 23000)) == pytest.approx(1, abs=1e-6)


def test_nothing_to_rebuild_from_is_refused():
    with pytest.raises(ValueError, match="snapshots"):
        reconstruct([], 0.1, 10)


def test_steps_that_are_not_given_count_from_one():
    modules = [nn.Linear(3, 2) for _ in range(2)]
    modules[1].load_state_dict(modules[0].state_dict())
    counting, told = (PowerEMA(module) for module in modules)
    for step in (1, 2, 3):
        for module in modules:
            with torch.no_grad():
                module.weight.fill_(float(step))
        counting.update()
        told.update(step)
    assert torch.equal(counting.averaged["weight"], told.averaged["weight"])
    assert counting.step == 3


def test_averages_take_a_modules_place_for_a_while_and_leave_its_weights_bit_for_bit():
    torch.manual_seed(0)
    module = nn.Sequential(MPLinear(7, 5), nn.Linear(5, 3))
    ema = PowerEMA(module)
    with torch.no_grad():
        module[0].weight.add_(torch.randn(5, 7)).mul_(1.2345)  # rows that loading would bring to unit length
        module[1].weight.mul_(2)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with ema.in_place():
        assert torch.equal(module[1].weight, ema.averaged["1.weight"])
        assert not torch.equal(module[1].weight, before["1.weight"])
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())

"""One step's error along trajectories: nothing for an exact consistency function, a closed form for a denoiser."""

from __future__ import annotations

import importlib
import math
from pathlib import Path

import pytest
import torch

from scm_media.conditioning import Conditioning
from scm_media.samplers import teacher_times
from tests.oracles import Gaussian

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def trajectory_error(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("trajectory_error")


def test_an_exact_student_errs_nowhere_and_a_denoiser_as_in_closed_form(trajectory_error):
    oracle = Gaussian.random((2, 3))
    flow, times = oracle.flow, teacher_times(64, oracle.flow)
    noise = flow.sigma_data * torch.randn(500, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    states = list(trajectory_error.trajectory(oracle, flow, noise, times, Conditioning()))
    assert len(states) == len(times) == 65

    found = trajectory_error.square_errors(oracle.consistency, Conditioning(), flow, states, times)
    assert found.div(500).sqrt().max() < 2e-3  # the solver's own error

    # A denoiser's step ends at mean + cos t · deviation² / V · (x − cos t · mean), the trajectory at
    # mean + deviation / √V · (x − cos t · mean).
    found = trajectory_error.square_errors(oracle, Conditioning(), flow, states, times).div(500)
    for place in (0, 20, 40, 60):
        t = torch.tensor(times[place], dtype=torch.float64)
        V, s = oracle.variance(t), oracle.deviation
        y = states[place] - torch.cos(t) * oracle.mean
        expected = (((torch.cos(t) * s**2 / V - s / V.sqrt()) * y) / flow.sigma_data).square().mean()
        assert found[place].item() == pytest.approx(expected.item(), rel=0.02, abs=1e-7)
    assert math.sqrt(found[0]) > 0.5  # at the most noise the denoiser knows nothing


def test_training_times_are_those_of_the_recipe(trajectory_error):
    oracle = Gaussian.random((2, 3))
    timesteps = {"_target_": "scm_media.timesteps.LogNormalTimesteps", "mean": 0.5, "std": 2.0}
    drawn = trajectory_error.draw_training_times({"student": {"loss": {"timesteps": timesteps}}}, oracle.flow)
    sigma = drawn.tan() * oracle.flow.sigma_data
    assert sigma.median().item() == pytest.approx(math.exp(0.5), rel=0.03)
    assert (sigma >= math.exp(2.5)).double().mean().item() == pytest.approx(0.1587, abs=0.005)  # one deviation above


@pytest.mark.slow
def test_a_guided_model_is_measured_from_the_command_line(trajectory_error, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["trajectory_error.py", "image/fashion", "--num", "4", "--every", "16"])
    trajectory_error.main()
    rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()[2:]]
    assert [float(row[0]) for row in rows] == sorted((float(row[0]) for row in rows), reverse=True)
    first, last = rows[0], rows[-1]
    assert float(first[3]) < 0.8 * float(first[2])  # what distillation is for: one step from noise
    assert float(last[3]) < float(first[3])

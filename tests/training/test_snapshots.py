"""Snapshots of averages through real trainings: what is rebuilt of them, that they resume, and that they are few."""

from __future__ import annotations

import shutil

import pytest
import torch
from torch import nn

from scm_media import weights
from scm_media.ema import PowerEMA
from scm_media.training.post_hoc_ema import Snapshots, rebuild, snapshot_steps
from tests.training.small import same, state, train

STEPS = 48
TEACHER = ("student.max_steps=0", f"teacher.max_steps={STEPS}", "trainer.snapshot_every=4", "teacher.optimizer.lr=0.01")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return train(tmp_path_factory.mktemp("run"), *TEACHER)


def _distance(one, other):
    return sum(float((one[name].double() - other[name].double()).square().sum()) for name in one) ** 0.5


@pytest.mark.slow
def test_a_rebuilt_average_is_that_of_a_training_that_tracked_it(run, tmp_path):
    tracked = state(train(tmp_path, *TEACHER, "teacher.ema_std=0.13"), "teacher")
    rebuilt = rebuild(run / "teacher" / "snapshots", 0.13, STEPS)
    own = state(run, "teacher")
    assert rebuilt.keys() == tracked.keys()
    assert _distance(rebuilt, tracked) < 0.1 * _distance(own, tracked)
    again = rebuild(run / "teacher" / "snapshots", 0.05, STEPS)
    assert _distance(again, own) < 0.02 * _distance(own, tracked), "the training's own length comes back"


@pytest.mark.slow
def test_a_resumed_training_leaves_the_same_snapshots(run, tmp_path):
    shutil.copytree(run / "autoencoder", tmp_path / "autoencoder")
    train(tmp_path, *TEACHER, "teacher.max_steps=20", "stage=teacher")
    train(tmp_path, *TEACHER, "stage=teacher")
    assert same(state(run, "teacher"), state(tmp_path, "teacher"))
    folders = [folder / "teacher" / "snapshots" for folder in (run, tmp_path)]
    assert snapshot_steps(folders[0]) == snapshot_steps(folders[1]) == list(range(4, STEPS + 1, 4))
    for step in snapshot_steps(folders[0]):
        one, other = (weights.read(folder / f"step-{step}.safetensors").state for folder in folders)
        assert same(one, other), step


def test_a_training_that_began_without_goes_on_without_and_says_so(tmp_path, capsys):
    wanted = ("student.max_steps=0", "teacher.max_steps=2")
    train(tmp_path, *wanted, "trainer.snapshot_every=0")
    train(tmp_path, "student.max_steps=0", "teacher.max_steps=4", "trainer.snapshot_every=1")
    assert "teacher: no snapshots of averages, its training began without (step 2)" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"holds no snapshots up to step 4.*trainer.snapshot_every"):
        rebuild(tmp_path / "teacher" / "snapshots", 0.1, 4)


class Counter(nn.Module):
    """A weight that follows the step, one beyond half precision, and a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2))
        self.large = nn.Parameter(torch.full((1,), 1e6))
        self.register_buffer("scale", torch.tensor(0.1))


def test_snapshots_are_few_and_span_the_whole_training(tmp_path):
    module = Counter()
    own = PowerEMA(module, 0.05)
    snapshots = Snapshots(tmp_path, module, own, every=2, keep=4)
    most = 0
    for step in range(1, 41):
        module.weight.data.fill_(step)
        own.update(step)
        snapshots.update(step)
        if snapshots.due(step):
            snapshots.write(step, snapshots.content())
        most = max(most, len(snapshot_steps(tmp_path)))
    assert most == 4
    assert snapshot_steps(tmp_path) == [8, 16, 24, 32]
    kept = weights.read(tmp_path / "step-32.safetensors").state
    assert kept["0.05/weight"].dtype == torch.float16
    assert kept["0.1/large"].tolist() == [1e6]
    rebuilt = rebuild(tmp_path, 0.1, 32)
    assert rebuilt["scale"] == module.scale, "buffers are copied, not combined"
    assert rebuilt["weight"].tolist() == pytest.approx([float(kept["0.1/weight"][0])] * 2, rel=1e-3)
    snapshots.clear()
    assert snapshot_steps(tmp_path) == []

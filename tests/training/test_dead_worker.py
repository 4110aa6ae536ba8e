"""A data worker that is killed ends the training at once, with its reason, and the same command goes on."""

from __future__ import annotations

import multiprocessing
import re
import time

import pytest

from scm_media.cli import main
from scm_media.training import checkpoints
from scm_media.training.optimization import Optimization
from tests.training.small import SMALL, same, state, train

WORDS = ("student.max_steps=0",)


@pytest.mark.parametrize("in_step", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_worker_that_is_killed_is_named_with_the_remedy(tmp_path, monkeypatch, capsys, in_step):
    run_dir, times = tmp_path / "run", []
    command = ["train", "image/tiny", *SMALL, *WORDS, f"run_dir={run_dir}", "trainer.num_workers=1"]
    whole = Optimization.step

    def killing(self, *arguments):
        due = checkpoints.steps(run_dir / "teacher" / "checkpoints") == [2, 4] and not times
        if due and not in_step:
            kill()
        figures = whole(self, *arguments)
        if due and in_step:
            kill()
            time.sleep(30)  # a long step, which the signal of the child's end ends
        return figures

    def kill():
        (worker,) = multiprocessing.active_children()
        times.append(time.monotonic())
        worker.kill()

    with monkeypatch.context() as patch:
        patch.setattr(Optimization, "step", killing)
        assert main(command) == 1
    assert time.monotonic() - times[0] < 20
    said = capsys.readouterr().err.strip().splitlines()[-1]
    seen = "(pid|ended while it handed a batch over)"  # by PyTorch, or by us where the worker ends in the midst of it
    assert re.match(rf"scm-media train: a worker that reads data stopped \(DataLoader worker \(?{seen}", said)
    assert said.endswith("look with scm-media check, or set trainer.num_workers=0")
    assert checkpoints.steps(run_dir / "teacher" / "checkpoints") == [2, 4]
    assert main(command) == 0
    assert same(state(train(tmp_path / "undisturbed", *WORDS), "teacher"), state(run_dir, "teacher"))

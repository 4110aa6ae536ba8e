"""Optimisers whose averages have 8 bits: their rate follows the schedule, and a training resumes to the bit."""

from __future__ import annotations

import sys

import pytest
import torch

from scm_media.training import checkpoints
from tests.training.small import metrics, same, state, train

pytest.importorskip("torchao")
EIGHT = ("optimizer@teacher.optimizer=adam_8bit", "student.max_steps=0", "backbone.width=64", "teacher.warmup_steps=4")


@pytest.fixture(autouse=True)
def eager():
    """Runs the optimiser's step without compiling it, which takes a minute."""
    with torch.compiler.set_stance("force_eager"):
        yield


@pytest.mark.slow
def test_a_training_with_averages_of_eight_bits_resumes_to_the_bit(tmp_path):
    train(tmp_path / "straight", *EIGHT)
    train(tmp_path / "resumed", *EIGHT, "teacher.max_steps=4")
    kept = checkpoints.load(tmp_path / "resumed" / "teacher" / "checkpoints", 4)["optimizer"]
    averages = [each["exp_avg"] for each in kept["state"].values()]
    assert any(type(each).__name__ == "OptimState8bit" and each.codes.dtype == torch.uint8 for each in averages)
    train(tmp_path / "resumed", *EIGHT)
    assert same(state(tmp_path / "straight", "teacher"), state(tmp_path / "resumed", "teacher"))


def test_the_rate_follows_the_schedule_and_the_weights_move_as_with_all_bits(tmp_path):
    few = train(tmp_path / "few", *EIGHT)
    whole = train(tmp_path / "whole", *EIGHT[1:])
    rates = [[line["rate"] for line in metrics(run / "teacher") if "rate" in line] for run in (few, whole)]
    assert rates[0] == rates[1] and rates[0][0] < rates[0][-1]
    start = state(train(tmp_path / "start", *EIGHT[1:], "teacher.max_steps=0"), "teacher")
    moves = [
        torch.cat([(state(run, "teacher")[name] - start[name]).flatten() for name in start]) for run in (few, whole)
    ]
    assert torch.cosine_similarity(*moves, dim=0) > 0.95


def test_a_checkpoint_without_torchao_says_what_to_install(tmp_path, monkeypatch):
    train(tmp_path, *EIGHT, "teacher.max_steps=1")
    monkeypatch.setitem(sys.modules, "torchao.optim.subclass_8bit", None)
    with pytest.raises(ValueError, match=r"need torchao .*pip install 'scm-media\[quantized\]'"):
        checkpoints.load(tmp_path / "teacher" / "checkpoints", 1)

"""A step's batch may be divided into passes and among devices; the training is the same."""

from __future__ import annotations

import pytest
import torch

from scm_media.data import order
from tests.training.small import metrics, state, train

PLAIN = ("backbone.dropout=0.0", "teacher.max_steps=4", "student.max_steps=4", "student.loss.label_dropout=0.2")


def losses(folder) -> list[float]:
    return [line["total"] for line in metrics(folder) if "total" in line]


@pytest.mark.parametrize("objective", ["scd", pytest.param("sct", marks=pytest.mark.slow)])
def test_passes_do_not_change_a_training(tmp_path, objective):
    words = (*PLAIN, f"student.objective={objective}", "+student.loss.timesteps.stratified=true")
    whole, divided = (train(tmp_path / str(num), *words, f"trainer.accumulate={num}") for num in (1, 4))
    for stage in ("teacher", "student"):
        assert len(losses(whole / stage)) == 4
        assert losses(divided / stage) == pytest.approx(losses(whole / stage), rel=1e-4)
        one, other = state(whole, stage), state(divided, stage)
        assert max((one[name] - other[name]).abs().max() for name in one) < 1e-4


def test_a_run_goes_on_with_another_number_of_passes(tmp_path):
    words = (*PLAIN, "student.max_steps=0")
    straight = train(tmp_path / "straight", *words)
    train(tmp_path / "divided", *words, "teacher.max_steps=2")
    divided = train(tmp_path / "divided", *words, "trainer.accumulate=4")
    assert losses(divided / "teacher") == pytest.approx(losses(straight / "teacher"), rel=1e-4)


def test_passes_of_a_step_take_one_bucket_and_the_examples_of_the_whole_batch():
    buckets = torch.tensor([0] * 11 + [1] * 6 + [2] * 3)
    divisions = [order.Division(place, 2, 2) for place in (0, 1)]
    for step in range(30):
        whole = order.select_from_bucket(step, range(8), 8, buckets, 5)
        parts = [each.part(8, number) for number in (0, 1) for each in divisions]
        found = [order.select_from_bucket(step, part, 8, buckets, 5) for part in parts]
        assert [pair for each in found for pair in each] == whole
        assert len({int(buckets[index]) for _, index in whole}) == 1

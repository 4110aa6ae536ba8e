"""Checkpoints of parts, on one device: of the moment of saving, complete or absent, ended with their training."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import distributed

from scm_media.training import checkpoints
from scm_media.training.sharded_checkpoints import ShardedCheckpoints


@pytest.fixture
def saver(tmp_path):
    """Writes into a folder, in a group of this process alone."""
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'group'}", rank=0, world_size=1)
    fabric = SimpleNamespace(global_rank=0, broadcast=lambda value: value)
    made = ShardedCheckpoints(fabric, tmp_path / "checkpoints", 2, {"seed": 0})
    yield made
    made.close()
    distributed.destroy_process_group()


def test_what_is_saved_is_of_the_moment_though_the_training_goes_on(saver, tmp_path):
    weight, kept = torch.zeros(5_000_000), tmp_path / "checkpoints"
    for step in (2, 4, 6):
        weight.fill_(step)
        saver.save(step, {"loss": {"weight": weight}, "skipped": step})
        weight.fill_(7)  # by the next step of the training
        saver.wait()
        checkpoints.check(kept, step)
        found = checkpoints.load(kept, step)
        assert found["skipped"] == step and (found["loss"]["weight"] == step).all()
    assert checkpoints.steps(kept) == [4, 6]


def test_a_checkpoint_with_a_part_that_nobody_sees_gets_no_name(saver, tmp_path, monkeypatch):
    """As on nodes that do not share a folder: each writes its part to a disk of its own."""
    gather = distributed.all_gather_object

    def of_two(found, own, group):
        gather(found, own, group)
        found.append({"shard-00002-model-00001-of-00001.safetensors": "0" * 64})

    monkeypatch.setattr(distributed, "all_gather_object", of_two)
    saver.save(2, {"loss": {"weight": torch.ones(4)}})
    with pytest.raises(ValueError, match=r"the first one sees shard-00001-\S+ in .*see the same folder"):
        saver.wait()
    assert checkpoints.steps(tmp_path / "checkpoints") == []


def test_closing_waits_for_what_is_being_written(saver, tmp_path):
    saver.save(2, {"loss": {"weight": torch.ones(1_000_000)}})
    saver.close()  # as where a step raises
    assert checkpoints.steps(tmp_path / "checkpoints") == [2]

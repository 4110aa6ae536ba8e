"""Two processes train one model, and go on where they stopped."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from scm_media import recipe, weights
from scm_media.training.devices import precision_advice
from scm_media.training.strategies import check_strategy
from tests.training.small import SMALL, metrics, same, state

TWO = ("num_devices=2", "strategy=ddp")


def command(run_dir, *overrides: str) -> None:
    words = ["train", "image/tiny", *SMALL, f"run_dir={run_dir}", *overrides]
    done = subprocess.run(
        [sys.executable, "-m", "scm_media", *words], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_two_processes_train_teacher_and_student_and_resume_to_the_bit(tmp_path):
    command(tmp_path / "straight", *TWO)
    for stage in ("teacher", "student"):
        assert all(torch.isfinite(value).all() for value in state(tmp_path / "straight", stage).values())
        steps = [line["step"] for line in metrics(tmp_path / "straight" / stage) if "total" in line]
        assert steps == [1, 2, 3, 4, 5, 6]
    command(tmp_path / "resumed", *TWO, "teacher.max_steps=4", "student.max_steps=0")
    command(tmp_path / "resumed", *TWO)
    for stage in ("teacher", "student"):
        assert same(state(tmp_path / "straight", stage), state(tmp_path / "resumed", stage))
    command(tmp_path / "accumulated", *TWO, "trainer.accumulate=2", "student.max_steps=0")
    assert all(torch.isfinite(value).all() for value in state(tmp_path / "accumulated", "teacher").values())


@pytest.mark.slow
def test_two_processes_end_a_stage_early_together_and_find_it_finished(tmp_path):
    still = (*TWO, "teacher.patience=1", "teacher.optimizer.lr=0.0", "trainer.validate_every=2", "student.max_steps=0")
    command(tmp_path, *still)
    info = weights.read_info(tmp_path / "teacher" / "weights.safetensors")
    assert (info["step"], info["last_step"], info["num_worse"]) == (2, 4, 1)
    command(tmp_path, *still)
    assert max(line["step"] for line in metrics(tmp_path / "teacher")) == 4


def averaged(folder, num: int, *words: str) -> subprocess.CompletedProcess[str]:
    folder.mkdir()
    arguments = [sys.executable, "-m", "tests.training.averaging", str(folder), str(num), *words]
    return subprocess.run(arguments, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.slow
def test_two_processes_average_to_one_processs_gradient_and_keep_equal_weights(tmp_path):
    for num in (1, 2):
        done = averaged(tmp_path / str(num), num)
        assert done.returncode == 0, done.stderr
    one = torch.load(tmp_path / "1" / "rank-0.pt")
    first, second = (torch.load(tmp_path / "2" / f"rank-{rank}.pt") for rank in range(2))
    assert same(first, second)
    assert one["net.weight"].item() != 0
    torch.testing.assert_close(first, one, rtol=1e-6, atol=0)
    norms = [metrics(tmp_path / num)[0]["gradient_norm"] for num in "12"]
    assert norms[1] == pytest.approx(norms[0], rel=1e-6)


@pytest.mark.slow
def test_two_processes_both_end_when_the_first_cannot_save(tmp_path):
    done = averaged(tmp_path / "full", 2, "fail")
    assert done.returncode != 0
    assert "No space left on device" in done.stderr
    assert "the first device stopped (OSError" in done.stderr
    assert not list((tmp_path / "full").glob("rank-*"))


@pytest.mark.slow
def test_workers_do_not_change_the_weights(tmp_path):
    command(tmp_path / "alone", "student.max_steps=0")
    command(tmp_path / "workers", "student.max_steps=0", "trainer.num_workers=2")
    assert same(state(tmp_path / "alone", "teacher"), state(tmp_path / "workers", "teacher"))


def test_bfloat16_on_a_processor_without_it_is_advised_against():
    config = {"precision": "bf16-mixed", "device": "cpu"}
    slow, fast = {torch.bfloat16: 0.04, torch.float32: 0.01}, {torch.bfloat16: 0.01, torch.float32: 0.01}
    advice = precision_advice(config, slow.__getitem__)
    assert advice is not None and "4 times slower" in advice and "precision=32-true" in advice
    assert precision_advice(config, fast.__getitem__) is None
    assert precision_advice({**config, "precision": "32-true"}, slow.__getitem__) is None
    measured = precision_advice(config)
    assert measured is None or "times slower" in measured


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("strategy=fsdp", "trainer.compile=true"), "set trainer.compile=false"),
        (("strategy=fsdp", "student.lora={rank: 4}"), "strategy=ddp or student.lora=null"),
        (("strategy=fsdp", "+backbone.network=UNet2DModel"), "does not shard networks of diffusers"),
        (
            ("strategy=fsdp", "optimizer@teacher.optimizer=adam_8bit"),
            "optimizers of torchao take steps of whole weights",
        ),
        (("context_parallel=2", "num_devices=2", "strategy=ddp"), "context_parallel 2 needs strategy=fsdp, got ddp"),
        (("context_parallel=2", "num_devices=3", "strategy=fsdp"), "must divide num_devices x num_nodes, got 3"),
    ],
)
def test_settings_that_several_devices_cannot_be_trained_with_are_refused(words, expected):
    config = recipe.compose("image/tiny", words)
    with pytest.raises(ValueError, match=expected):
        check_strategy(config)
    check_strategy(recipe.compose("image/tiny", ["strategy=fsdp", "num_devices=4", "context_parallel=2"]))

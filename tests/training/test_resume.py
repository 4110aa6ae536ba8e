"""``kill -9`` at a random step and resume: the same weights, bit for bit, and no step reported twice."""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest

from scm_media.training import checkpoints
from tests.training.killed_runs import train_until_killed
from tests.training.small import SMALL, metrics, same, state, train

NUM_STEPS = 60
LONG = (f"teacher.max_steps={NUM_STEPS}", f"student.max_steps={NUM_STEPS}", "trainer.checkpoint_every=6")
NUM_OF_TEN = 120
OF_TEN = (f"teacher.max_steps={NUM_OF_TEN}", f"student.max_steps={NUM_OF_TEN}", "trainer.checkpoint_every=12")
"""A training that is killed ten times before it ends."""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return train(tmp_path_factory.mktemp("undisturbed"), *LONG)


def kill_during(stage: str, run_dir, delay: float) -> None:
    """Starts a real training and kills it some time after the first checkpoint of a stage."""
    words = ["train", "image/tiny", *SMALL, *LONG, f"run_dir={run_dir}"]
    with open(run_dir / "log", "wb") as log:
        process = subprocess.Popen([sys.executable, "-m", "scm_media", *words], stderr=log, stdout=log)
    try:
        deadline = time.monotonic() + 300
        while not checkpoints.steps(run_dir / stage / "checkpoints"):
            assert process.poll() is None, (run_dir / "log").read_text()
            assert time.monotonic() < deadline, "no checkpoint after five minutes"
            time.sleep(0.002)
        time.sleep(delay)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert process.returncode == -signal.SIGKILL


@pytest.mark.parametrize("stage", [pytest.param("teacher", marks=pytest.mark.slow), "student"])
def test_killed_and_resumed_is_the_undisturbed_run(undisturbed, tmp_path, stage):
    for earlier in ("autoencoder", "teacher") if stage == "student" else ():
        shutil.copytree(undisturbed / earlier, tmp_path / earlier)
    delay = random.SystemRandom().uniform(0, 0.2)
    kill_during(stage, tmp_path, delay)
    reached = checkpoints.steps(tmp_path / stage / "checkpoints")[-1]
    assert reached < NUM_STEPS, "killed too late to say anything"

    train(tmp_path, *LONG)
    said = f"killed {delay:.4f} s after the first checkpoint, resumed from step {reached}"
    for each in ("teacher", "student"):
        assert same(state(undisturbed, each), state(tmp_path, each)), f"{each}: {said}"
        lines, expected = (
            [(line["step"], sorted(line)) for line in metrics(run / each)] for run in (tmp_path, undisturbed)
        )
        assert lines == expected, said


def begin(run_dir, write: int | None = None, part: float = 0.0) -> multiprocessing.Process:
    """Starts the training in a fork of a process that has imported everything and computed nothing.

    A fork of this one could not train: threads of PyTorch's autograd do not survive it.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.training.killed_runs"])
    process = context.Process(target=train_until_killed, args=(run_dir, OF_TEN, write, part))
    process.start()
    return process


@pytest.mark.slow
def test_a_run_that_is_killed_ten_times_is_the_undisturbed_run(tmp_path_factory, tmp_path):
    undisturbed = train(tmp_path_factory.mktemp("undisturbed"), *OF_TEN)
    draw, history, reached = random.Random(0), [], set()
    for number in range(10):
        in_write = number % 2 == 1
        write, part = (draw.randint(1, 6), draw.choice([0.0, 1.0, draw.random()])) if in_write else (None, 0.0)
        process = begin(tmp_path, write, part)
        if in_write:
            process.join(200)
            history.append(f"write {write}, {part:.2f} of it")
        else:
            before, delay = newest(tmp_path), draw.uniform(0, 0.3)
            while newest(tmp_path) == before and process.is_alive():
                time.sleep(0.002)
            time.sleep(delay)
            process.kill()
            process.join(200)
            history.append(f"{delay:.3f} s after a checkpoint")
        said = (tmp_path / "log").read_text()
        assert process.exitcode == -signal.SIGKILL, f"{history}\n{said}"
        reached.add(newest(tmp_path))
    assert len(reached) > 5, "nearly all of it was trained after the last kill"
    last = begin(tmp_path)
    last.join(200)
    assert last.exitcode == 0, (tmp_path / "log").read_text()
    for stage in ("teacher", "student"):
        assert same(state(undisturbed, stage), state(tmp_path, stage)), history
        steps = [line["step"] for line in metrics(tmp_path / stage) if "total" in line]
        assert steps == list(range(1, NUM_OF_TEN + 1)), history
    assert not list(tmp_path.rglob("*.part"))


def newest(run_dir) -> tuple[int, ...]:
    """Returns the steps of the last checkpoints of teacher and student."""
    return tuple(max(checkpoints.steps(run_dir / stage / "checkpoints"), default=0) for stage in ("teacher", "student"))


def test_killed_before_the_first_checkpoint_starts_from_the_same_weights(undisturbed, tmp_path):
    shutil.copytree(undisturbed / "autoencoder", tmp_path / "autoencoder")
    train(tmp_path, *LONG, "stage=teacher")
    assert same(state(undisturbed, "teacher"), state(tmp_path, "teacher"))


def test_fresh_weights_do_not_hang_on_the_stages_before(tmp_path):
    steps = ("teacher.max_steps=2", "student.max_steps=0")
    feature_extractor = (
        "feature_extractor={network: {_target_: modalities.image.features.ImageClassifier, channels: 1, width: 4}, "
        "max_steps: 2, batch_size: 4, optimizer: {_target_: torch.optim.Adam, lr: 0.01}}"
    )
    with_features, without = train(tmp_path / "with", feature_extractor, *steps), train(tmp_path / "without", *steps)
    assert same(state(with_features, "teacher"), state(without, "teacher"))


def test_a_done_stage_is_not_trained_again_and_a_larger_number_of_steps_goes_on(tmp_path, capsys):
    train(tmp_path, "student.max_steps=4")
    before = {stage: state(tmp_path, stage) for stage in ("teacher", "student")}
    written = len(metrics(tmp_path / "student"))
    capsys.readouterr()
    train(tmp_path, "student.max_steps=4", "stage=student")
    assert "student: trained to step 4 before" in capsys.readouterr().err
    assert same(before["student"], state(tmp_path, "student"))
    assert len(metrics(tmp_path / "student")) == written

    train(tmp_path, "student.max_steps=7", "stage=student")
    assert checkpoints.steps(tmp_path / "student" / "checkpoints")[-1] == 7
    assert not same(before["student"], state(tmp_path, "student"))
    assert same(before["teacher"], state(tmp_path, "teacher"))
    straight = train(tmp_path / "straight", "student.max_steps=7")
    assert same(state(straight, "student"), state(tmp_path, "student"))


@pytest.mark.parametrize("damaged", [False, True])
def test_lost_and_damaged_weights_are_written_again_from_the_last_checkpoint(tmp_path, damaged):
    train(tmp_path, "stage=autoencoder")
    train(tmp_path, "stage=teacher")
    before, file = state(tmp_path, "teacher"), tmp_path / "teacher" / "weights.safetensors"
    content = bytearray(file.read_bytes())
    content[-3] ^= 8
    file.unlink()
    if damaged:
        file.write_bytes(content)
        with pytest.raises(ValueError, match=r"teacher/weights\.safetensors is damaged"):
            train(tmp_path, "stage=student")
    train(tmp_path, "stage=teacher")
    assert same(before, state(tmp_path, "teacher"))

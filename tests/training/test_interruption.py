"""SIGINT and SIGTERM: a checkpoint is saved first, and the run that goes on ends as one that nobody stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest
import torch

from scm_media.fabric import Fabric
from scm_media.training import checkpoints
from scm_media.training.interruption import REQUEUING, SIGNALS, Interruption
from tests.training.small import SMALL, Numbers, Slope, metrics, run_task, same, state, train

FEATURE_EXTRACTOR = (
    "feature_extractor={network: {_target_: modalities.image.features.ImageClassifier, channels: 1, width: 4}, "
    "max_steps: 60, batch_size: 4, optimizer: {_target_: torch.optim.Adam, lr: 0.01}}"
)
LATENT = (
    "autoencoder=kl",
    "autoencoder.network.factor=4",
    "autoencoder.network.width=8",
    "autoencoder.network.depth=1",
    "autoencoder.network.latent_channels=2",
    "autoencoder.num_samples=null",
    "autoencoder.batch_size=8",
    "modality.flip=false",
    "backbone.patch=1",
)


@pytest.fixture(autouse=True)
def _heard():
    """Tests that run in the background of a shell would ignore SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class Signalling(Numbers):
    """Numbers whose batch of one step sends signals to this process."""

    def __init__(self, step: int, *numbers: int) -> None:
        super().__init__()
        self.step, self.numbers, self.asked = step, numbers, 0

    def batch(self, indices, generators=None):
        self.asked += 1
        if self.asked == self.step:
            for number in self.numbers:
                os.kill(os.getpid(), number)
        return super().batch(indices, generators)


@pytest.mark.parametrize("number", SIGNALS)
def test_the_current_step_is_finished_saved_and_reported(tmp_path, capsys, number):
    before = [signal.getsignal(each) for each in SIGNALS]
    straight = run_task(tmp_path / "straight", Slope([2.0], {1: 3.0}), 6)
    with pytest.raises(SystemExit) as ended:
        run_task(tmp_path / "stopped", Slope([2.0], {1: 3.0}), 6, Signalling(3, number))
    assert ended.value.code == 128 + number
    assert [signal.getsignal(each) for each in SIGNALS] == before
    kept = tmp_path / "stopped" / "checkpoints"
    assert checkpoints.steps(kept) == [3]
    line = f"teacher: stopped by {number.name}, saved as {kept / 'step-3'}; the same command goes on from there\n"
    assert capsys.readouterr().err.endswith(line)
    assert same(straight, run_task(tmp_path / "stopped", Slope([2.0], {1: 3.0}), 6))
    assert [line["step"] for line in metrics(tmp_path / "stopped") if "total" in line] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("number", REQUEUING)
def test_a_handler_that_requeues_the_job_gets_the_signal_once_all_is_saved(tmp_path, number):
    kept, saved = tmp_path / "checkpoints", []

    def requeue(number, frame):  # as submitit's
        saved.append(checkpoints.steps(kept))
        raise SystemExit(-1)

    before = signal.signal(number, requeue)
    try:
        with pytest.raises(SystemExit) as ended:
            run_task(tmp_path, Slope(), 6, Signalling(3, number))
    finally:
        signal.signal(number, before)
    assert ended.value.code == -1
    assert saved == [[3]]


def test_a_second_signal_ends_at_once(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run_task(tmp_path, Slope(), 6, Signalling(3, signal.SIGINT, signal.SIGINT))
    assert checkpoints.steps(tmp_path / "checkpoints") == []


def test_a_signal_in_the_sheet_of_the_last_step_is_not_lost(tmp_path):
    def preview(model, step, folder):
        if step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return {}

    with pytest.raises(SystemExit) as ended:
        run_task(tmp_path, Slope(), 2, preview=preview)
    assert ended.value.code == 143
    assert checkpoints.steps(tmp_path / "checkpoints") == [2]


def test_a_signal_after_the_last_check_is_raised_again():
    with pytest.raises(KeyboardInterrupt), Interruption():
        os.kill(os.getpid(), signal.SIGINT)


def test_a_signal_that_is_ignored_stays_ignored(tmp_path):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    run_task(tmp_path, Slope(), 4, Signalling(2, signal.SIGINT))
    assert checkpoints.steps(tmp_path / "checkpoints") == [4]


def test_other_threads_train_without_handlers(tmp_path):
    done = []
    thread = threading.Thread(target=lambda: done.append(run_task(tmp_path, Slope(), 2)))
    thread.start()
    thread.join()
    assert done[0]["net.weight"].item() == -2.0
    assert checkpoints.steps(tmp_path / "checkpoints") == [2]


def stop(run_dir, stage: str, number: int, *overrides: str, group: bool = False) -> subprocess.CompletedProcess[str]:
    """Trains in a process of its own and sends it a signal when a stage has made its first steps."""
    words = ["train", "image/tiny", *SMALL, f"run_dir={run_dir}", *overrides]
    process = subprocess.Popen(
        [sys.executable, "-m", "scm_media", *words], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    file, deadline = run_dir / stage / "metrics.jsonl", time.monotonic() + 200
    while not file.exists() or file.stat().st_size == 0:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.002)
    (os.killpg if group else os.kill)(process.pid, number)
    said = process.communicate(timeout=100)[1]
    return subprocess.CompletedProcess(words, process.returncode, "", said)


STEPS = (
    *LATENT,
    FEATURE_EXTRACTOR,
    *(f"{stage}.max_steps=60" for stage in ("autoencoder", "teacher", "student")),
    "trainer.checkpoint_every=1000",
)


@pytest.mark.slow
def test_every_stage_that_trains_is_stopped_and_goes_on_to_the_bit(tmp_path):
    straight = train(tmp_path / "straight", *STEPS)
    run_dir = tmp_path / "stopped"
    for stage in ("feature_extractor", "autoencoder", "teacher", "student"):
        done = stop(run_dir, stage, signal.SIGTERM, *STEPS)
        assert done.returncode == 143, done.stderr
        (reached,) = checkpoints.steps(run_dir / stage / "checkpoints")
        assert reached < 60
        assert f"{stage}: stopped by SIGTERM, saved as {run_dir}/{stage}/checkpoints/step-{reached}; " in done.stderr
        assert "Traceback" not in done.stderr
    train(run_dir, *STEPS)
    for stage in ("feature_extractor", "autoencoder", "teacher", "student"):
        assert same(state(straight, stage), state(run_dir, stage)), stage


@pytest.mark.slow
@pytest.mark.parametrize("number", SIGNALS)
def test_workers_that_get_the_signal_too_serve_the_step_under_way(tmp_path, number):
    words = ("teacher.max_steps=3000", "student.max_steps=0", "trainer.checkpoint_every=10000", "trainer.num_workers=2")
    done = stop(tmp_path, "teacher", number, *words, group=True)
    assert done.returncode == 128 + number, done.stderr
    assert "Traceback" not in done.stderr
    assert "DataLoader worker" not in done.stderr
    assert checkpoints.steps(tmp_path / "teacher" / "checkpoints")


@pytest.mark.slow
@pytest.mark.parametrize(("group", "strategy"), [(False, "ddp"), (True, "ddp"), (False, "fsdp")])
def test_two_devices_agree_on_the_step_whichever_gets_the_signal(tmp_path, group, strategy):
    words = ("teacher.max_steps=80", "student.max_steps=0", "trainer.checkpoint_every=1000")
    two = ("num_devices=2", f"strategy={strategy}", *words)
    done = stop(tmp_path, "teacher", signal.SIGTERM, *two, group=group)
    assert done.returncode == 143, done.stderr
    assert done.stderr.count("teacher: stopped by SIGTERM") == 1
    assert "Traceback" not in done.stderr
    assert len(checkpoints.steps(tmp_path / "teacher" / "checkpoints")) == 1
    for run_dir in (tmp_path, tmp_path / "straight"):
        command = [sys.executable, "-m", "scm_media", "train", "image/tiny", *SMALL, f"run_dir={run_dir}", *two]
        subprocess.run(command, check=True, capture_output=True, timeout=200)
    assert same(state(tmp_path / "straight", "teacher"), state(tmp_path, "teacher"))


def test_devices_take_the_signal_of_any_of_them():
    class Two(Fabric):
        world_size = 2

        def all_reduce(self, tensor, reduce_op):
            assert reduce_op == "max"
            return torch.maximum(tensor, torch.tensor(15))

    interruption = Interruption()
    assert interruption.agree(Two(accelerator="cpu", devices=1))
    assert interruption.number == signal.SIGTERM

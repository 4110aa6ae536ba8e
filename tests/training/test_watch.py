"""A rank that dies ends the job within a minute, with its reason, and the same command goes on."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from scm_media.training import checkpoints, watch
from tests.training.small import SMALL, Slope, metrics, run_task, same, state


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def ranks(folder, dying: int, where: str) -> tuple[list[int], str, float]:
    """Starts two ranks as schedulers do; returns their exit codes, what they said, and seconds from death to end."""
    folder.mkdir(exist_ok=True)
    port, log = str(free_port()), folder / "log"
    with open(log, "wb") as file:
        started = [
            subprocess.Popen(
                [sys.executable, "-m", "tests.training.dying", str(folder), str(dying), where],
                env={**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "LOCAL_RANK": str(rank)},
                stdout=file,
                stderr=file,
            )
            for rank in range(2)
        ]
    try:
        started[dying].wait(timeout=200)
        begun = time.monotonic()
        started[1 - dying].wait(timeout=60)
        seconds = time.monotonic() - begun
    finally:
        for process in started:
            process.kill()
            process.wait()
    return [process.returncode for process in started], log.read_text(), seconds


def line_of(said: str) -> str:
    """Returns the one line that names the rank."""
    (line,) = [line for line in said.splitlines() if "all ranks end" in line]
    return line


@pytest.mark.slow
@pytest.mark.parametrize("dying", [0, 1])
@pytest.mark.parametrize("where", ["step", "writing", "hanging"])
def test_a_rank_that_is_killed_ends_the_other_with_its_reason_and_nothing_is_lost(tmp_path, dying, where):
    codes, said, seconds = ranks(tmp_path / "run", dying, where)
    assert codes[dying] == -signal.SIGKILL
    assert codes[1 - dying] == 1, said
    assert seconds < 30
    assert line_of(said).startswith(f"scm-media train: rank {dying} of 2 (process ")
    assert "is gone: its process was killed, maybe for want of memory, or its machine does not answer" in said
    assert said.rstrip().endswith("the same command goes on from the last checkpoint")
    assert "gloo" not in said.partition("all ranks end")[2]
    kept = tmp_path / "run" / "checkpoints"
    # Rank 0 finishes the checkpoint that it is writing while rank 1 dies.
    reached = {("writing", 1): [2, 4]}.get((where, dying), [2])
    assert checkpoints.steps(kept) == reached
    for step in reached:
        checkpoints.load(kept, step)

    assert run_task(tmp_path / "run", Slope([2.0]), 6)["net.weight"].item() == -12.0


@pytest.mark.slow
def test_a_command_whose_second_rank_is_killed_ends_with_its_signal_and_goes_on_to_the_bit(tmp_path):
    words = ("student.max_steps=0", "teacher.max_steps=40", "trainer.num_workers=1")
    two = ["image/tiny", *SMALL, *words, "num_devices=2", "strategy=ddp"]
    command, run_dir = [sys.executable, "-m", "scm_media", "train", *two], tmp_path / "run"
    kept, log = run_dir / "teacher" / "checkpoints", tmp_path / "log"
    with open(log, "wb") as file:
        first = subprocess.Popen([*command, f"run_dir={run_dir}"], stdout=file, stderr=file, start_new_session=True)
    try:
        while not checkpoints.steps(kept):
            assert first.poll() is None, log.read_text()
            time.sleep(0.01)
        second = second_rank(first.pid)
        os.kill(second, signal.SIGKILL)
        begun = time.monotonic()
        assert first.wait(60) == 1
    finally:
        first.kill()
        first.wait()
    said = log.read_text()
    assert time.monotonic() - begun < 40
    assert line_of(said) == (
        f"scm-media train: rank 1 of 2 (process {second} on {socket.gethostname()}) was ended by SIGKILL, maybe for "
        "want of memory: all ranks end; the same command goes on from the last checkpoint"
    )
    assert said.endswith(f"{line_of(said)}\n"), "nothing is said after it"
    assert checkpoints.steps(kept)[-1] < 40, "killed too late to say anything"
    for folder in (run_dir, tmp_path / "straight"):
        subprocess.run([*command, f"run_dir={folder}"], check=True, capture_output=True, timeout=300)
    assert same(state(tmp_path / "straight", "teacher"), state(run_dir, "teacher"))


def second_rank(parent: int) -> int:
    """Returns the process of rank 1, which Lightning has started as a child with LOCAL_RANK=1."""
    for children in Path(f"/proc/{parent}/task").glob("*/children"):
        for child in map(int, children.read_text().split()):
            if b"LOCAL_RANK=1" in Path(f"/proc/{child}/environ").read_bytes().split(b"\0"):
                return child
    raise AssertionError("there is no second rank")


@pytest.mark.slow
def test_an_error_of_one_rank_is_told_by_the_first(tmp_path):
    codes, said, seconds = ranks(tmp_path, 1, "error")
    assert codes == [1, 1]
    assert seconds < 30
    assert ") stopped (ValueError: mine.png cannot be decoded): all ranks end; the same command goes" in line_of(said)


@pytest.mark.slow
@pytest.mark.parametrize("dying", [0, 1])
def test_a_step_that_is_not_finite_on_one_rank_is_skipped_by_both(tmp_path, dying):
    codes, said, _ = ranks(tmp_path, dying, "nan")
    assert codes == [0, 0], said
    assert [torch.load(tmp_path / f"rank-{rank}.pt")["net.weight"].item() for rank in range(2)] == [-8.0, -8.0]
    assert [line["skipped_steps"] for line in metrics(tmp_path) if "skipped_steps" in line] == [0, 1, 1, 2, 2, 2]


@pytest.mark.slow
def test_ranks_wait_for_the_first_as_long_as_it_lives(tmp_path):
    codes, said, _ = ranks(tmp_path, 1, "slow")
    assert codes == [0, 0], said
    assert torch.load(tmp_path / "rank-1.pt")["net.weight"].item() == -12.0


@pytest.mark.parametrize("sent", [b"", b"hello\n", b"[" * 60_000 + b"\n", b"{" * 100_000])
def test_what_a_stranger_sends_is_nothing(sent):
    ours, theirs = socket.socketpair()
    sender = threading.Thread(target=lambda: (theirs.sendall(sent), theirs.shutdown(socket.SHUT_WR)))
    sender.start()
    assert watch._read(ours) is None
    sender.join(10)


def test_a_worker_that_was_forked_keeps_no_connection_open():
    ours, theirs = socket.socketpair()
    watch._open.add(ours)
    worker = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
    worker.start()
    try:
        watch._open.discard(ours)
        ours.close()
        theirs.settimeout(20)
        assert theirs.recv(1) == b""  # raises TimeoutError where the connection stays open
        assert worker.is_alive()
    finally:
        worker.kill()
        worker.join()

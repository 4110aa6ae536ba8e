"""One run at a time in a run folder: the second is refused, and a killed one leaves nothing that has to be removed."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys

import pytest

from scm_media.cli import main
from scm_media.training import run_folder
from scm_media.training.run_folder import claim
from tests.training.small import SMALL, train

HOLDER = """
import multiprocessing, sys, time
from pathlib import Path
from scm_media.training.run_folder import claim

with claim(Path(sys.argv[1])):
    worker = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
    worker.start()
    print(worker.pid, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """A process that holds the lock of ``tmp_path``, with a forked worker that outlives it."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    worker = int(process.stdout.readline())
    yield process
    process.kill()
    process.wait()
    os.kill(worker, signal.SIGKILL)


def test_a_second_run_is_refused_with_the_holder_and_a_killed_one_holds_nothing(tmp_path, holder, capsys):
    command = ["train", "image/tiny", *SMALL, f"run_dir={tmp_path}", "stage=autoencoder"]
    assert main(command) == 1
    assert capsys.readouterr().err.endswith(
        f"scm-media train: {tmp_path} is in use by process {holder.pid} on {socket.gethostname()}: wait for that run "
        "to end, stop it, or use another run_dir\n"
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock"]
    holder.kill()
    holder.wait()
    assert main(command) == 0
    assert (tmp_path / "autoencoder" / "weights.safetensors").exists()


def test_latents_are_not_encoded_into_the_folder_of_a_run(tmp_path, capsys):
    train(tmp_path, "stage=autoencoder")
    with claim(tmp_path):
        assert main(["encode", "image/tiny", *SMALL, f"run_dir={tmp_path}", "modality.flip=false"]) == 1
    assert f"{tmp_path} is in use by process {os.getpid()}" in capsys.readouterr().err


def test_one_process_may_run_again_and_hold_two_folders(tmp_path):
    for _ in range(2):
        with claim(tmp_path / "one"), claim(tmp_path / "other"):
            for name in ("one", "other"):
                with (
                    pytest.raises(ValueError, match=rf"{name} is in use by process {os.getpid()} "),
                    claim(tmp_path / name),
                ):
                    pass
    with claim(tmp_path / "one"):
        pass


def test_the_lock_is_free_again_after_an_error(tmp_path):
    with pytest.raises(KeyError), claim(tmp_path):
        raise KeyError
    with claim(tmp_path):
        pass


def test_a_file_system_without_locks_is_reported_and_used(tmp_path, monkeypatch, capsys):
    def cannot(file):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(run_folder, "_lock", cannot)
    ran = False
    with claim(tmp_path):
        ran = True
    assert ran
    said = f"{tmp_path}: its file system cannot lock (No locks available); let no other run use this folder\n"
    assert capsys.readouterr().err == said

"""A disk that is full, as the kernel says it: one line, nothing half-written, and the run goes on with more space."""

from __future__ import annotations

import errno
import resource
from contextlib import contextmanager
from pathlib import Path

import pytest

from scm_media import weights
from scm_media.cli import main
from scm_media.training import checkpoints
from tests.training.small import SMALL, same, state, train

WHOLE = (
    "modality.flip=false",
    "latents.automatic=true",
    "latents.dtype=float32",
    "latents.shard_size=16",
    "+trajectories.num=32",
    "+trajectories.steps=2",
    "+trajectories.batch_size=8",
    "+trajectories.shard_size=16",
    "teacher.max_steps=4",
    "student.max_steps=4",
    "trainer.snapshot_every=3",
)
STAGES = ("autoencoder", "teacher", "student")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return train(tmp_path_factory.mktemp("undisturbed"), *WHOLE)


@contextmanager
def no_more_than(size: int):
    """Lets no file of this process grow beyond a size: the kernel writes that much, and refuses the rest."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(
    "pattern",
    [
        "teacher/checkpoints/.step-4.part/state.safetensors",
        "student/weights.safetensors",
        "latents/train/*1.safetensors",
        *(
            pytest.param(each, marks=pytest.mark.slow)
            for each in (
                "teacher/checkpoints/.step-4.part/state.json",
                "teacher/snapshots/step-3.safetensors",
                "teacher/weights.safetensors",
                "trajectories/*1.safetensors",
                "model.json",
            )
        ),
    ],
)
def test_a_file_of_which_half_is_written_is_refused_in_one_line_and_the_run_goes_on(
    undisturbed, tmp_path, monkeypatch, capsys, pattern
):
    run_dir, refused = tmp_path / "run", []

    def halved(write):
        def write_half(path, content):
            if not Path(path).match(str(run_dir / pattern)):
                return write(path, content)
            refused.append(path)
            with no_more_than(len(content) // 2):
                return write(path, content)

        return write_half

    command = ["train", "image/tiny", *SMALL, *WHOLE, f"run_dir={run_dir}"]
    with monkeypatch.context() as patch:
        patch.setattr(weights, "write_whole", halved(weights.write_whole))
        patch.setattr(checkpoints, "_write", halved(checkpoints._write))
        assert main(command) == 1
    (path,) = refused
    said = capsys.readouterr().err.strip().splitlines()[-1]
    named = run_dir / "teacher" / "checkpoints" / "step-4" if "checkpoints" in pattern else path
    assert said.startswith(f"scm-media train: {named} was not ")
    assert "File too large" in said
    assert "last good checkpoint is intact" in said or "free some space" in said
    assert not path.exists()
    assert not list(run_dir.rglob("*.part"))
    for folder in run_dir.glob("*/checkpoints"):
        for step in checkpoints.steps(folder):
            checkpoints.load(folder, step)

    assert main(command) == 0
    for stage in STAGES:
        assert same(state(undisturbed, stage), state(run_dir, stage)), stage


def test_the_limit_stands_for_a_full_disk(tmp_path):
    with (
        pytest.raises(OSError, match="File too large") as told,
        no_more_than(10),
        open(tmp_path / "file", "wb") as file,
    ):
        file.write(b"x" * 20)
    assert told.value.errno == errno.EFBIG
    assert (tmp_path / "file").stat().st_size == 10

"""A sweep whose trainings are jobs of submitit: Slurm's, or as here processes of this machine."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from scm_media import recipe, training
from tests.training.small import SMALL, same, state

ONE_STEP = ("teacher.max_steps=1", "student.max_steps=1")


def rate_of(recipe_file: Path) -> float:
    """Returns the teacher's learning rate in the recipe of a run folder."""
    return yaml.safe_load(recipe_file.read_text())["teacher"]["optimizer"]["lr"]


@pytest.mark.slow
def test_jobs_of_a_sweep_train_what_direct_runs_do(tmp_path):
    rates = ("1e-3", "2e-3")
    command = ["train", "image/tiny", *SMALL, *ONE_STEP, f"teacher.optimizer.lr={','.join(rates)}"]
    sweep = tmp_path / "sweep"
    flags = ["-m", "hydra/launcher=submitit_local", f"hydra.sweep.dir={sweep}"]
    done = subprocess.run(
        [sys.executable, "-m", "scm_media", *command, *flags],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(list((sweep / ".submitit").glob("*/*_result.pkl"))) == 2, "they were jobs"
    trained = []
    for rate in rates:
        run_dir = tmp_path / f"direct-{rate}"
        words = [*SMALL, *ONE_STEP, f"teacher.optimizer.lr={rate}", f"run_dir={run_dir}"]
        training.run(recipe.compose("image/tiny", words))
        (job,) = (each.parent for each in tmp_path.glob("runs/**/recipe.yaml") if rate_of(each) == float(rate))
        trained.append(state(job, "student"))
        assert same(state(run_dir, "student"), trained[-1])
    assert not same(*trained)

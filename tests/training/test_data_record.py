"""A run that goes on notices other data, and says how many examples differ."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pytest
from PIL import Image

from scm_media import recipe, training
from scm_media.training.run_folder import EXAMPLES
from tests.training.small import SMALL, forget_fingerprint, same, state, train

SHORT = ("teacher.max_steps=2", "student.max_steps=0", "autoencoder.num_samples=8")


@pytest.fixture
def pictures(tmp_path):
    """Twenty pictures in two class folders."""
    root = tmp_path / "pictures"
    for number in range(20):
        folder = root / ("dark" if number % 2 else "bright")
        folder.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 255, (16, 16), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:02d}.png")
    return root


def train_on(root, run_dir, *overrides: str):
    """Trains a small recipe on the pictures in a folder."""
    small = [override for override in SMALL if not override.startswith("data.")]
    data = ("data=folder", f"data.root={root}", "data.held_out=0.2")
    training.run(recipe.compose("image/tiny", [*small, *SHORT, *data, f"run_dir={run_dir}", *overrides]))
    return run_dir


def test_files_that_were_added_changed_or_removed_are_counted_and_refused(pictures, tmp_path):
    run_dir = train_on(pictures, tmp_path / "run")
    teacher = state(run_dir, "teacher")
    before = (run_dir / "teacher" / EXAMPLES).read_bytes()
    shutil.copy(pictures / "dark" / "01.png", pictures / "dark" / "99.png")
    (pictures / "bright" / "02.png").unlink()
    Image.new("L", (16, 16)).save(pictures / "bright" / "04.png")
    with pytest.raises(
        ValueError, match=r"was trained on other data \(2 of 20 examples are new or have changed"
    ) as told:
        train_on(pictures, run_dir)
    assert "2 of 20 are no longer there as they were" in str(told.value)
    assert f"another run_dir, with init_from={run_dir}" in str(told.value)
    assert (run_dir / "teacher" / EXAMPLES).read_bytes() == before
    assert same(teacher, state(run_dir, "teacher"))


def test_another_choice_of_the_data_is_named_by_its_key(pictures, tmp_path):
    run_dir = train_on(pictures, tmp_path / "run")
    with pytest.raises(ValueError, match=r"other data \(.*examples.*; data\.held_out: 0\.2 → 0\.4\)"):
        train_on(pictures, run_dir, "data.held_out=0.4")
    with pytest.raises(ValueError, match=r"other data \(.*; data\.num: 64 → 63\)"):
        train(train(tmp_path / "shapes", *SHORT), *SHORT, "data.num=63")


def test_a_folder_that_was_moved_is_the_same_data(pictures, tmp_path):
    run_dir = train_on(pictures, tmp_path / "run", "teacher.max_steps=1")
    moved = pictures.rename(tmp_path / "elsewhere")
    train_on(moved, run_dir)
    straight = train_on(moved, tmp_path / "straight")
    assert same(state(straight, "teacher"), state(run_dir, "teacher"))


def test_files_that_were_written_again_are_remarked_on_once(pictures, tmp_path, capsys):
    run_dir = train_on(pictures, tmp_path / "run")
    for name in ("01", "03", "05"):
        os.utime(pictures / "dark" / f"{name}.png", ns=(0, 0))
    capsys.readouterr()
    train_on(pictures, run_dir)
    assert "teacher: 3 of 20 files of the data have another time of change" in capsys.readouterr().err
    train_on(pictures, run_dir)
    assert "time of change" not in capsys.readouterr().err


def test_a_run_without_a_record_of_its_data_goes_on_with_one_remark(pictures, tmp_path, capsys):
    run_dir = train_on(pictures, tmp_path / "run", "teacher.max_steps=1")
    for stage in ("autoencoder", "teacher"):
        (run_dir / stage / EXAMPLES).unlink()
    forget_fingerprint(run_dir / "teacher" / "checkpoints" / "step-1")
    capsys.readouterr()
    train_on(pictures, run_dir)
    remark = "autoencoder, teacher: begun before data, networks and optimizers were recorded, which are taken to be the"
    assert capsys.readouterr().err.count(remark) == 1
    assert same(state(train_on(pictures, tmp_path / "straight"), "teacher"), state(run_dir, "teacher"))
    capsys.readouterr()
    train_on(pictures, run_dir)
    assert "recorded" not in capsys.readouterr().err


def test_a_stage_may_have_data_of_its_own(pictures, tmp_path):
    run_dir = train_on(pictures, tmp_path / "run", "stage=autoencoder")
    (pictures / "bright" / "02.png").unlink()
    train_on(pictures, run_dir, "stage=teacher", "modality.flip=false")


def test_data_may_change_while_nothing_is_trained(pictures, tmp_path):
    run_dir = train_on(pictures, tmp_path / "run", "stage=autoencoder")
    (pictures / "bright" / "02.png").unlink()
    with pytest.raises(ValueError, match=r"other data \(\d+ of 19 examples are new .*, \d+ of 20 are no longer"):
        train_on(pictures, run_dir)
    shutil.rmtree(run_dir / "autoencoder")
    train_on(pictures, run_dir, "stage=autoencoder")


def test_another_modality_setting_is_noticed_before_the_first_checkpoint(pictures, tmp_path):
    run_dir = train_on(pictures, tmp_path / "run", "stage=autoencoder")
    with pytest.raises(
        ValueError, match=r"autoencoder was trained on other data \(modality\.background: -1\.0 → 1\.0\)"
    ):
        train_on(pictures, run_dir, "modality.background=1.0")


def test_a_model_that_could_not_be_opened_again_is_not_trained(pictures, tmp_path):
    (pictures / "dark").rename(pictures / ("d" * 230))
    with pytest.raises(ValueError, match="image/tiny: a name of a model, label or class has 1 to 200 characters"):
        train_on(pictures, tmp_path / "run")
    assert not (tmp_path / "run").exists()

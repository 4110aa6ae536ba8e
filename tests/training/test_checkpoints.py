"""Checkpoints come back as they were saved, are complete or absent, and say clearly when they do not fit."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file

from scm_media.cli import main
from scm_media.training import checkpoints
from tests.training.small import SMALL, Slope, flip_last_bits, forget_fingerprint, metrics, run_task, same, state, train

TEACHER = ("student.max_steps=0",)


def test_nested_state_comes_back_as_it_was(tmp_path):
    saved = {
        "loss": {"a.b": torch.randn(2, 3).T, "half": torch.randn(4).bfloat16(), "count": torch.tensor(7)},
        "optimizer": {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 0.1, "betas": [0.9, 0.99]}]},
        "none": None,
        "flag": True,
        "skipped": 2,
    }
    checkpoints.save(tmp_path, 5, saved, keep=2)
    back = checkpoints.load(tmp_path, 5)
    assert same(saved["loss"], back["loss"])
    assert back["loss"]["half"].dtype == torch.bfloat16
    assert torch.equal(back["optimizer"]["state"][0]["step"], torch.tensor(3.0))
    assert back["optimizer"]["param_groups"] == saved["optimizer"]["param_groups"]
    assert (back["none"], back["flag"], back["skipped"]) == (None, True, 2)


def test_the_last_few_are_kept(tmp_path):
    for step in (2, 10, 9, 100):
        checkpoints.save(tmp_path, step, {"x": torch.zeros(1)}, keep=2)
    assert checkpoints.steps(tmp_path) == [10, 100]


def test_what_a_kill_left_half_written_is_no_checkpoint(tmp_path):
    checkpoints.save(tmp_path, 2, {"x": torch.ones(1)}, keep=2)
    part = tmp_path / ".step-4.part"
    part.mkdir()
    (part / "state.safetensors").write_bytes(b"half")
    assert checkpoints.steps(tmp_path) == [2]
    checkpoints.save(tmp_path, 4, {"x": torch.ones(1)}, keep=2)
    assert checkpoints.steps(tmp_path) == [2, 4]
    assert not part.exists()


@pytest.mark.parametrize("again", [False, True])
def test_a_kill_while_a_checkpoint_is_removed_leaves_none_that_looks_complete(tmp_path, monkeypatch, again):
    for step in (2, 4):
        checkpoints.save(tmp_path, step, {"x": torch.ones(1)}, keep=2)

    def killed(path, ignore_errors=False):
        if path.is_dir():
            (path / "state.safetensors").unlink()
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            checkpoints.save(tmp_path, 4 if again else 6, {"x": torch.ones(1)}, keep=2)
    for step in checkpoints.steps(tmp_path):
        assert checkpoints.load(tmp_path, step)["x"] == 1
    checkpoints.save(tmp_path, 8, {"x": torch.ones(1)}, keep=1)
    assert [entry.name for entry in tmp_path.iterdir()] == ["step-8"]


def test_a_checkpoint_of_something_else_says_what_it_lacks(tmp_path):
    checkpoints.save(tmp_path / "checkpoints", 1, {"epoch": 3, "ema": {}}, keep=2)
    with pytest.raises(ValueError, match=r"step-1 .* has epoch, ema and lacks loss, optimizer, skipped; use another"):
        run_task(tmp_path, Slope(), 2)
    state = {"loss": Slope().state_dict(), "optimizer": {}, "ema": {}, "skipped": 0}
    checkpoints.save(tmp_path / "checkpoints", 1, state, keep=2)
    with pytest.raises(ValueError, match="another optimizer"):
        run_task(tmp_path, Slope(), 2)


def test_a_checkpoint_without_a_fingerprint_is_resumed(tmp_path):
    straight = run_task(tmp_path / "straight", Slope(), 4)
    run_task(tmp_path / "old", Slope(), 2)
    forget_fingerprint(tmp_path / "old" / "checkpoints" / "step-2")
    file = tmp_path / "old" / "checkpoints" / "step-2" / "state.json"
    written = json.loads(file.read_text())
    items = written["state"]["__items__"]
    written["state"]["__items__"] = [item for item in items if item[0] != "skipped_in_a_row"]
    assert len(written["state"]["__items__"]) == len(items) - 1
    file.write_text(json.dumps(written))
    assert checkpoints.load_training_fingerprint(tmp_path / "old" / "checkpoints") == (2, {})
    assert same(straight, run_task(tmp_path / "old", Slope(), 4))


def no_space(*_args):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("failing", ["write", pytest.param("rename", marks=pytest.mark.slow)])
def test_no_space_is_one_line_and_the_last_good_checkpoint_is_resumed(tmp_path, monkeypatch, capsys, failing):
    write, rename = checkpoints._write, os.replace

    def failing_write(path, content):
        return no_space() if "step-4" in str(path) else write(path, content)

    def failing_rename(source, target):
        return no_space() if "step-4" in str(target) else rename(source, target)

    with monkeypatch.context() as patch:
        if failing == "write":
            patch.setattr(checkpoints, "_write", failing_write)
        else:
            patch.setattr(os, "replace", failing_rename)
        run_dir = tmp_path / "run"
        assert main(["train", "image/tiny", *SMALL, *TEACHER, f"run_dir={run_dir}"]) == 1
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("scm-media train: ")
    for part in ("step-4 was not saved", "No space left on device", "last good checkpoint is intact"):
        assert part in said
    assert checkpoints.steps(run_dir / "teacher" / "checkpoints") == [2]
    assert [entry.name for entry in (run_dir / "teacher" / "checkpoints").iterdir()] == ["step-2"]
    train(run_dir, *TEACHER)
    assert same(state(train(tmp_path / "undisturbed", *TEACHER), "teacher"), state(run_dir, "teacher"))


def truncate(file) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def remove(file) -> None:
    file.unlink()


@pytest.mark.parametrize("damage", [truncate, flip_last_bits, remove])
@pytest.mark.parametrize("file", ["state.safetensors", "state.json"])
def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_is_gone_on_from(tmp_path, capsys, file, damage):
    run_dir = train(tmp_path / "run", *TEACHER)
    good = state(run_dir, "teacher")
    kept = run_dir / "teacher" / "checkpoints"
    damage(kept / "step-6" / file)
    capsys.readouterr()
    train(run_dir, *TEACHER)
    (said,) = [line for line in capsys.readouterr().err.splitlines() if "damaged" in line]
    assert said.startswith(f"teacher: {kept / 'step-6'} is damaged (")
    assert said.endswith("goes on from step-4, the one before; the damaged one is now step-6.damaged")
    assert same(good, state(run_dir, "teacher"))
    assert [line["step"] for line in metrics(run_dir / "teacher") if "total" in line] == [1, 2, 3, 4, 5, 6]
    assert checkpoints.steps(kept) == [4, 6]
    assert (kept / "step-6.damaged").is_dir()


def test_a_run_without_a_whole_checkpoint_is_refused_and_left_as_it_is(tmp_path):
    run_dir = train(tmp_path / "run", *TEACHER)
    kept = run_dir / "teacher" / "checkpoints"
    for step in (4, 6):
        flip_last_bits(kept / f"step-{step}" / "state.safetensors")
    with pytest.raises(ValueError, match=r"holds no whole checkpoint \(step-6: .*SHA-256; step-4: .*put back a copy"):
        train(run_dir, *TEACHER)
    assert checkpoints.steps(kept) == [4, 6]


def test_any_flipped_bit_of_a_checkpoint_is_noticed(tmp_path):
    saved = {"x": torch.arange(40.0), "optimizer": {0: {"lr": 0.5, "on": True}}, "none": None}
    path = checkpoints.save(tmp_path, 3, saved, keep=1, training_fingerprint={"seed": 0})
    for name in ("state.safetensors", "state.json"):
        whole = (path / name).read_bytes()
        for place in range(len(whole)):
            damaged = bytearray(whole)
            damaged[place] ^= 1 << (place % 7)
            (path / name).write_bytes(damaged)
            if b'"sha256"' not in damaged and name == "state.json":
                continue  # taken for one of before digests were kept
            with pytest.raises(ValueError, match="step-3 is no whole checkpoint"):
                checkpoints.load(tmp_path, 3)
        (path / name).write_bytes(whole)
    assert checkpoints.load(tmp_path, 3)["optimizer"] == saved["optimizer"]


def test_what_killed_runs_left_is_removed_at_the_next_start(tmp_path):
    run_dir = train(tmp_path / "run", *TEACHER)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    left = [
        run_dir / f".model.json.{ended.pid}.part",
        run_dir / "teacher" / f".weights.safetensors.{ended.pid}.part",
        run_dir / "teacher" / "checkpoints" / ".step-3.part" / "state.json",
        run_dir / "teacher" / "checkpoints" / ".step-2.old.part" / "state.json",
    ]
    being_written = run_dir / f".metrics.json.{os.getpid()}.part"
    own = run_dir / "notes.part"
    for file in (*left, being_written, own):
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(b"half")
    train(run_dir, *TEACHER)
    assert not any(file.exists() or (file.parent.name.endswith(".part") and file.parent.exists()) for file in left)
    assert being_written.exists()
    assert own.exists()


@pytest.mark.parametrize("content", ["[]", "{}", '{"state": {"a": 1}}'])
def test_a_checkpoint_of_another_program_is_named(tmp_path, content):
    path = checkpoints.save(tmp_path, 3, {"x": torch.ones(1)}, keep=1)
    (path / "state.json").write_text(content)
    with pytest.raises(ValueError, match="step-3 is no whole checkpoint"):
        checkpoints.load(tmp_path, 3)
    (path / "state.json").unlink()
    with pytest.raises(ValueError, match="step-3 is no whole checkpoint"):
        checkpoints.load(tmp_path, 3)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("backbone.depth=2", r"missing: backbone\.blocks\.1\."),
        ("backbone.depth=0", r"unexpected: backbone\.blocks\.0\."),
        ("backbone.width=32", r"backbone\.\S+ \(.*16.*\), expected \(.*32"),
        ("teacher.loss.weight=none", r"unexpected: .*weight\.linear\.bias"),
        ("optimizer@teacher.optimizer=radam", "another optimizer"),
    ],
)
def test_a_checkpoint_of_another_recipe_lists_what_does_not_fit(tmp_path, override, expected):
    train(tmp_path, *TEACHER)
    forget_fingerprint(tmp_path / "teacher" / "checkpoints" / "step-6")
    with pytest.raises(ValueError, match=rf"step-6 belongs to another recipe \(.*({expected}).*use another run_dir"):
        train(tmp_path, *TEACHER, override)


def test_a_run_folder_of_other_data_is_refused(tmp_path):
    train(tmp_path, *TEACHER)
    before = (tmp_path / "recipe.yaml").read_text()
    with pytest.raises(
        ValueError, match=r"was trained on other data \(its examples.*modality\.size: 16 → 32.*use another run_dir"
    ):
        train(tmp_path, *TEACHER, "modality.size=32")
    assert (tmp_path / "recipe.yaml").read_text() == before
    assert json.loads((tmp_path / "model.json").read_text())["sample_shape"] == [1, 16, 16]


@pytest.fixture
def parts(tmp_path):
    """A checkpoint of step 2 whose tensors two devices have written."""
    tensors: dict[str, torch.Tensor] = {}
    state = {"loss": {"a": torch.ones(3), "b": torch.arange(2.0)}, "skipped": 1}
    skeleton = checkpoints.without_tensors(state, tensors)
    checkpoints.make_part_folder(tmp_path, 2)
    folder, digests = checkpoints.part_folder(tmp_path, 2), {}
    for number, (name, tensor) in enumerate(tensors.items()):
        file = folder / f"shard-0000{number + 1}-model-00001-of-00001.safetensors"
        save_file({name: tensor}, file)
        digests[file.name] = hashlib.sha256(file.read_bytes()).hexdigest()
    return checkpoints.complete(tmp_path, 2, skeleton, 1, {"seed": 0}, digests)


def test_parts_of_several_devices_are_read_as_one_state(parts):
    checkpoints.check(parts.parent, 2)
    found = checkpoints.load(parts.parent, 2)
    assert found["skipped"] == 1 and found["loss"]["a"].tolist() == [1, 1, 1] and found["loss"]["b"].tolist() == [0, 1]
    assert checkpoints.load_training_fingerprint(parts.parent) == (2, {"seed": 0})
    into = torch.zeros(3)
    found = checkpoints.load(parts.parent, 2, lambda name, size, dtype: into if name == "/loss/a" else None)
    assert found["loss"]["a"] is into and into.tolist() == [1, 1, 1]


def test_changed_absent_and_foreign_parts_are_noticed(parts):
    one, other = sorted(parts.glob("*.safetensors"))
    content = other.read_bytes()
    flip_last_bits(other)
    with pytest.raises(checkpoints.DamagedCheckpoint, match=r"shard-00002-\S+ does not have its digest"):
        checkpoints.check(parts.parent, 2)
    other.unlink()
    for read in (checkpoints.check, checkpoints.load):
        with pytest.raises(checkpoints.DamagedCheckpoint, match="its parts are not shard-00001-"):
            read(parts.parent, 2)
    other.write_bytes(content)
    checkpoints.check(parts.parent, 2)
    shutil.copy(one, parts / "shard-00003-model-00001-of-00001.safetensors")
    with pytest.raises(checkpoints.DamagedCheckpoint, match="its parts are not"):
        checkpoints.load(parts.parent, 2)

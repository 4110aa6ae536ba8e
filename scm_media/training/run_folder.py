"""A run folder: its lock, the record of the data that its stages were begun with, and the weights they leave.

``<stage>/examples.safetensors`` holds a row for each example of a dataset that has ``versions()``, the configuration of
data and modality, and the data fingerprint. A stage does not go on where files were added, removed, renamed, or changed
in size or label, because the order of examples follows from all of them. It goes on with a remark where only times of
change differ: copying a folder changes those too.
"""

from __future__ import annotations

import errno
import os
import re
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scm_media import weights
from scm_media.training.context import Context
from scm_media.training.fingerprint import FINGERPRINT, differences, flat, model_fingerprint
from scm_media.training.optimization import Finish
from scm_media.training.post_hoc_ema import is_selected

LOCK = ".lock"
EXAMPLES = "examples.safetensors"
SECTIONS = ("data", "modality")
_TAKEN = (errno.EAGAIN, errno.EACCES, errno.EDEADLK)
_held: set[int] = set()


@contextmanager
def claim(run_dir: Path) -> Iterator[None]:
    """Makes the folder and holds ``run_dir/.lock`` while its block runs.

    The operating system releases the lock when its process ends, however it ends. On a file system without locks
    (some network ones) a remark is printed and the block runs unlocked. Raises ValueError, with the process and host
    of the holder, when another run holds the lock.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    file = os.open(run_dir / LOCK, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o666)
    _held.add(file)
    try:
        try:
            _lock(file)
        except OSError as error:
            if error.errno in _TAKEN:
                holder = os.read(file, 200).decode(errors="replace").strip() or "another process"
                raise ValueError(
                    f"{run_dir} is in use by {holder}: wait for that run to end, stop it, or use another run_dir"
                ) from error
            print(
                f"{run_dir}: its file system cannot lock ({error.strerror or error}); let no other run use this folder",
                file=sys.stderr,
            )
        os.truncate(file, 0)
        os.write(file, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        yield
    finally:
        _held.discard(file)
        os.close(file)


def find_holder(run_dir: Path) -> str | None:
    """Returns the process and host that hold the lock of a run folder, None where no process does.

    The lock is tried for an instant, unless the file names a process of this host that has ended: a run that begins
    meanwhile is hardly ever in the way. On a file system without locks the answer is None.
    """
    try:
        file = os.open(run_dir / LOCK, os.O_RDWR)
    except OSError:
        return None
    try:
        words = os.read(file, 200).decode(errors="replace").strip()
        found = re.fullmatch(r"process (\d+) on (.+)", words)
        if found and found[2] == socket.gethostname() and not weights.is_running(int(found[1])):
            return None
        try:
            _lock(file)
        except OSError as error:
            return (words or "another process") if error.errno in _TAKEN else None
        return None
    finally:
        os.close(file)


if sys.platform == "win32":
    import msvcrt

    def _lock(file: int) -> None:
        os.lseek(file, 1 << 30, os.SEEK_SET)  # beyond the text: Windows lets nobody read what is locked
        try:
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        finally:
            os.lseek(file, 0, os.SEEK_SET)

else:
    import fcntl

    def _lock(file: int) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _release_in_child() -> None:
        # A worker that is forked shares the lock, and would hold it for a while after its parent was killed.
        for file in _held:
            os.close(file)

    os.register_at_fork(after_in_child=_release_in_child)


def record_data(context: Context, stage: str) -> None:
    """Writes the record of the examples that a stage trains on, unless it is up to date."""
    file, info = context.run_dir / stage / EXAMPLES, {FINGERPRINT: context.data_fingerprint}
    config = {name: context.config[name] for name in SECTIONS}
    state = _versions(context)
    if file.is_file():
        kept = weights.read(file)
        same = kept.state.keys() == state.keys() and all(torch.equal(kept.state[name], state[name]) for name in state)
        if same and (kept.config, kept.info) == (config, info):
            return
    weights.save(file, state, config, info)


def is_recorded(context: Context, stage: str) -> bool:
    """Returns whether a stage has a record of its examples."""
    return (context.run_dir / stage / EXAMPLES).is_file()


def check_data(context: Context, stage: str) -> list[str]:
    """Compares the examples with the record of a stage and returns remarks for the user.

    Raises ValueError with the settings and the number of examples that differ.
    """
    file = context.run_dir / stage / EXAMPLES
    kept = weights.read(file)
    before, now = _settings(kept.config, kept.info), _settings(context.config, {FINGERPRINT: context.data_fingerprint})
    versions = _versions(context)
    found = differences(before, now, [key for key in {**before, **now} if key != FINGERPRINT])
    if before[FINGERPRINT] != now[FINGERPRINT]:
        found.insert(0, _count_changes(kept.state, versions))
    if found:
        raise ValueError(
            f"{file.parent} was trained on other data ({'; '.join(found)}): put data and settings back as they were, "
            f"or use another run_dir, with init_from={context.run_dir} to start from its weights"
        )
    written = sum(_num_written(kept.state[name], rows) for name, rows in versions.items() if name in kept.state)
    if written:
        return [
            f"{stage}: {written} of {sum(map(len, versions.values()))} files of the data have another time of change "
            "than when it was begun, but the same names, sizes and labels: if they hold anything else, use another "
            "run_dir"
        ]
    return []


def _settings(config: Mapping[str, Any], info: Mapping[str, Any]) -> dict[str, Any]:
    settings = {key: value for name in SECTIONS for key, value in flat(config[name], name).items()}
    return {**settings, FINGERPRINT: info.get(FINGERPRINT)}


def _versions(context: Context) -> dict[str, Tensor]:
    """Returns the versions ``(N, 2)`` of each split's examples, none for a dataset without files."""
    splits = {"train": context.data, "held_out": context.held_out}
    return {name: rows for name, data in splits.items() if len(rows := data.versions())}


def _count_changes(before: Mapping[str, Tensor], now: Mapping[str, Tensor]) -> str:
    """Returns how many examples differ, as text."""
    old, new = (set(torch.cat([torch.zeros(0, 2).long(), *rows.values()])[:, 0].tolist()) for rows in (before, now))
    if not old or not new or old == new:
        return "its examples are not the same"
    return (
        f"{len(new - old)} of {len(new)} examples are new or have changed in name, size or label, "
        f"{len(old - new)} of {len(old)} are no longer there as they were"
    )


def _num_written(before: Tensor, now: Tensor) -> int:
    times = dict(before.tolist())
    return sum(times.get(example, time) != time for example, time in now.tolist())


def save_stage_weights(context: Context, stage: str, config: Mapping[str, Any]) -> Finish:
    """Returns a function that writes a stage's averaged weights, as ``Task.finish``.

    It leaves weights alone whose average was selected after the training to the same step.
    """
    file = context.weights_file(stage)
    info = {"recipe": context.config["recipe"], **model_fingerprint(context.config, stage)}

    def finish(state: Mapping[str, Tensor], step: int, header: Mapping[str, int]) -> None:
        if not is_selected(file, step):
            weights.save(file, state, config, {**info, **header, "step": step})

    return finish

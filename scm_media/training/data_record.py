"""The examples that a stage was begun with, kept in its folder, so that other data are noticed when it goes on.

``examples.safetensors`` holds a row for each example of a dataset that has ``versions()``, and the configuration and
fingerprints of data and modality. Files that were added, removed, renamed, or changed in size or label are refused: the
order in which examples are seen follows from all of them, so that the run would not be the one that was begun. Files
with another time of change alone are remarked on, since copying a folder changes it too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from scm_media import weights
from scm_media.training.context import Context
from scm_media.training.training_fingerprint import FINGERPRINT, differences, flat

FILE = "examples.safetensors"
SECTIONS = ("data", "modality")


def record_data(context: Context, stage: str) -> None:
    """Writes which examples a stage trains on, unless the very same are recorded already."""
    file, info = context.run_dir / stage / FILE, {FINGERPRINT: context.fingerprint}
    config = {name: context.config[name] for name in SECTIONS}
    state = _versions(context)
    if file.is_file():
        kept = weights.read(file)
        same = kept.state.keys() == state.keys() and all(torch.equal(kept.state[name], state[name]) for name in state)
        if same and (kept.config, kept.info) == (config, info):
            return
    weights.save(file, state, config, info)


def is_recorded(context: Context, stage: str) -> bool:
    """Returns whether it is known which examples a stage was begun with."""
    return (context.run_dir / stage / FILE).is_file()


def check_data(context: Context, stage: str) -> list[str]:
    """Compares the examples with those that a stage was begun with, which are recorded; returns remarks for the user.

    Raises ValueError with what differs, and how many examples.
    """
    file = context.run_dir / stage / FILE
    kept = weights.read(file)
    before, now = _told(kept.config, kept.info), _told(context.config, {FINGERPRINT: context.fingerprint})
    versions = _versions(context)
    found = differences(before, now, [key for key in {**before, **now} if key != FINGERPRINT])
    if before[FINGERPRINT] != now[FINGERPRINT]:
        found.insert(0, _counted(kept.state, versions))
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


def _told(config: Mapping[str, Any], info: Mapping[str, Any]) -> dict[str, Any]:
    settings = {key: value for name in SECTIONS for key, value in flat(config[name], name).items()}
    return {**settings, FINGERPRINT: info.get(FINGERPRINT)}


def _versions(context: Context) -> dict[str, Tensor]:
    """Returns the rows of each split, none for a dataset without files."""
    splits = {"train": context.data, "held_out": context.held_out}
    return {name: rows for name, data in splits.items() if len(rows := data.versions())}


def _counted(before: Mapping[str, Tensor], now: Mapping[str, Tensor]) -> str:
    """Returns how many examples differ, in words."""
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
